"""The only way out of a sandbox that installs: a proxy that reaches this machine's package indexes and nothing else.

It lives as long as one install. The sandbox has no network: `door.py` listens on the loopback of its namespace and hands
the listening socket out, so the connections of uv arrive here, and no byte is copied in there.
"""

from taxiway.integrations.egress.proxy import IndexProxy
from taxiway.integrations.egress.registries import Program, Registries, find_npm, read_registries
from taxiway.integrations.egress.registry import Offer, RegistryProxy
from taxiway.integrations.egress.serving import Serving, egress, serving
from taxiway.integrations.egress.sources import Source, Sources, read_sources

__all__ = [
    "IndexProxy",
    "Offer",
    "Program",
    "Registries",
    "RegistryProxy",
    "Serving",
    "Source",
    "Sources",
    "egress",
    "find_npm",
    "read_registries",
    "read_sources",
    "serving",
]
