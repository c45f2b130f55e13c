"""What does a stage's work: the built-in agents, and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from taxiway.agents import deploy, diagnose, e2e, integrate, monitor, recover, scaffold, update_dependencies, validate, write_e2e
from taxiway.agents.base import API_VERSION, Agent
from taxiway.errors import OperatorError

__all__ = ["ENTRY_POINT_GROUP", "Agent", "registry"]

ENTRY_POINT_GROUP = "taxiway.agents"

BUILT_IN = (
    scaffold.AGENT,
    write_e2e.AGENT,
    validate.AGENT,
    e2e.AGENT,
    integrate.AGENT,
    deploy.AGENT,
    monitor.AGENT,
    recover.AGENT,
    diagnose.AGENT,
    update_dependencies.AGENT,
)


def registry() -> Mapping[str, Agent]:
    """All agents by name: the built-in ones, then every `taxiway.agents` entry point of an installed package.

    Raises OperatorError where an installed agent cannot be loaded, speaks another API version, or takes a taken name.
    """
    agents = {agent.name: agent for agent in BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            agent = point.load()
        except Exception as error:  # whatever the foreign package raises while it is imported
            raise OperatorError(
                f"agent {point.name!r} of {point.value} cannot be loaded: {error}", hint="mend or uninstall the package"
            ) from error
        if not isinstance(agent, Agent) or agent.api != API_VERSION:
            raise OperatorError(
                f"agent {point.name!r} of {point.value} does not speak agent API {API_VERSION}", hint="install a version that does"
            )
        if agent.name in agents:
            raise OperatorError(f"agent {agent.name!r} of {point.value} takes a name that is taken", hint="uninstall one of the two")
        agents[agent.name] = agent
    return MappingProxyType(agents)
