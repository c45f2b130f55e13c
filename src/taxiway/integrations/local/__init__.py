"""Target `local`: supervised processes of this machine behind a switch on its loopback."""

from taxiway.integrations.local.target import LocalTarget

__all__ = ["LocalTarget"]
