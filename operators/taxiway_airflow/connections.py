"""Where a run is put together: Airflow's connections and settings become the engine's ports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow.configuration import conf
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import OperatorError
from taxiway.home import Home, find_home
from taxiway.integrations.advisories import advisories
from taxiway.integrations.artifacts import DirectoryArtifacts
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.claude import ClaudeModels, client_from
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.forges import find_forge
from taxiway.integrations.git import GitCredentials, GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.target import LocalTarget
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.integrations.servers import LocalServers
from taxiway.integrations.servers_elsewhere import Address, GivenServers
from taxiway.integrations.upgrading import package_managers
from taxiway.ports import ArtifactStore, Cancellation, Forge, Ports

if TYPE_CHECKING:
    import anthropic

__all__ = ["artifact_store", "build_ports", "git_credentials", "taxiway_home"]

SHARED_HOME_VARIABLE = "TAXIWAY_SHARED_HOME"
"""Set to 1 by an operator who mounts one Taxiway home on every worker."""


def taxiway_home() -> Home:
    """The Taxiway home of this worker."""
    return find_home(Path.cwd(), os.environ)


def artifact_store() -> ArtifactStore:
    """Where reports and summaries go."""
    return DirectoryArtifacts(taxiway_home().artifacts)


def build_ports(
    plan: Plan, *, run: str, params: Mapping[str, Any], started: datetime, stage: PlannedStage, stop: Cancellation | None = None
) -> Ports:
    """Everything that one attempt can reach, until `stop` ends it; raise OperatorError where this machine cannot offer it."""
    home = taxiway_home()
    url = str(params.get("repository") or "")
    _refuse_what_others_cannot_see(url, stage)
    ledger, models = SqliteLedger(home.ledger), _models(plan)
    # Whatever a stage before was told, on whatever machine: once a model answered in this run, its code may be the model's.
    asked = (models is not None and models.configured) or any(call.state == "settled" for call in ledger.spending(run))
    trusted, unisolated = plan.trusts(url, asked=asked), plan.unisolated(asked=asked)
    sandbox = ProcessSandbox(trusted=trusted or unisolated)
    environments = UvEnvironments(home, trusted=trusted, unisolated=unisolated)
    credentials = _credentials(plan, url)
    workspace = GitWorkspace(home=home, pipeline=plan.pipeline, run=run, url=url, credentials=credentials, started=started, stop=stop)
    return Ports(
        sandbox=sandbox,
        environments=environments,
        workspace=workspace,
        artifacts=artifact_store(),
        ledger=ledger,
        targets={"local": LocalTarget(home, trusted=trusted or unisolated)},
        advisories=advisories(os.environ),
        trusted=trusted,
        browsers=find_browsers(os.environ),
        models=models,
        secrets=(*_secrets(os.environ), *((credentials.token, credentials.private_key) if credentials else ())),
        servers=GivenServers(LocalServers(os.environ), _addresses(plan) if trusted else {}),
        forge=_forge(plan, url, credentials, stop) if stage.inputs.get("mode", "push") != "push" else None,
        upgrades=package_managers(),
    )


def _models(plan: Plan) -> ClaudeModels | None:
    """The models by the policy's Airflow connection, or by the worker's own environment."""
    if plan.policy.models is None:
        return None
    name = plan.policy.models.connection
    missing = (
        f"Airflow has no connection {name!r}: make it (Admin > Connections), or name another in the policy"
        if name
        else "set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a server of your own, for the"
        " workers; or name an Airflow connection: `models: {connection: ...}` in the policy"
    )
    connect = partial(_client, name) if name else partial(client_from, os.environ)
    return ClaudeModels(connect, missing=missing, environ=os.environ, named=bool(name))


def _client(connection: str) -> anthropic.Anthropic | None:
    """A client by that connection; None where Airflow has none of this name: stages that need no model are not to fail for it."""
    from airflow.providers.anthropic.hooks.anthropic import AnthropicHook  # noqa: PLC0415 - takes a second, and most stages ask no model

    # Bedrock's and Vertex' clients answer the same calls.
    try:
        return cast("anthropic.Anthropic", AnthropicHook(connection).get_conn())
    except AirflowNotFoundException:
        return None


_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AIRFLOW_CONN_|SQL_ALCHEMY_CONN", re.IGNORECASE)


def _secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What of the worker's environment no model is shown and no trace holds: by the names of variables."""
    return tuple(value for name, value in environ.items() if _SECRET.search(name) and value)


def _refuse_what_others_cannot_see(url: str, stage: PlannedStage) -> None:
    """Remote executors run each stage on whatever machine is free: what only one machine sees does not work there."""
    executors = [e.strip().rsplit(".", 1)[-1].rsplit(":", 1)[-1] for e in conf.get("core", "executor").split(",")]
    if all(e in ("LocalExecutor", "SequentialExecutor") for e in executors):
        return
    if stage.agent == "deploy" and stage.inputs.get("target", "local") == "local":
        raise OperatorError(
            f"target local runs a service on one machine, and {executors[0]} runs stages on any",
            hint="use the LocalExecutor for this pipeline",
        )
    if os.environ.get(SHARED_HOME_VARIABLE) != "1":
        what = "the repository" if not url or url.startswith(("/", "file:")) else "the artifact store"
        raise OperatorError(
            f"{what} lies in the Taxiway home of one machine, and {executors[0]} runs stages on any",
            hint=f"mount one Taxiway home on every worker and set {SHARED_HOME_VARIABLE}=1, or use the LocalExecutor",
        )


def _credentials(plan: Plan, url: str) -> GitCredentials | None:
    """The token or key of the Airflow connection that the policy names for this repository."""
    entry = plan.policy.repository(url) if url else None
    return git_credentials(entry.connection) if entry and entry.connection else None


def _addresses(plan: Plan) -> dict[str, Address | OperatorError]:
    """Servers for tests that the policy names. Code that is not trusted gets no credentials: its servers are started beside it."""
    return {server: _address(server, connection) for server, connection in plan.policy.services.items()}


def _address(server: str, name: str) -> Address | OperatorError:
    """Where the Airflow connection leads, or what is wrong with it: only tests that need the server shall fail for it."""
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return OperatorError(
            f"the policy names connection {name!r} for {server}, and Airflow has none", hint=f"airflow connections add {name}"
        )
    if not connection.host:
        return OperatorError(f"connection {name!r} has no host", hint="set it in Airflow")
    database = str(connection.schema or connection.extra_dejson.get("db", ""))
    port = connection.port or {"postgres": 5432, "redis": 6379}[server]
    address = Address(connection.host, port, connection.login or "", connection.password or "", database)
    for secret in address.secrets:
        mask_secret(secret)
    return address


def _forge(plan: Plan, url: str, credentials: GitCredentials | None, stop: Cancellation | None) -> Forge | None:
    """The forge that has the repository's pull requests, with the token that git logs in with."""
    if not url:
        return None
    entry = plan.policy.repository(url)
    kind, api = (entry.forge, entry.api) if entry else ("", "")
    return find_forge(url, kind=kind, api=api, token=credentials.token if credentials else "", stop=stop)


def git_credentials(name: str) -> GitCredentials:
    """The token or key of an Airflow connection; raise OperatorError where it holds none."""
    connection = BaseHook.get_connection(name)
    extra = connection.extra_dejson
    key = extra.get("private_key") or (Path(extra["key_file"]).read_text() if extra.get("key_file") else "")
    if not connection.password and not key:
        raise OperatorError(
            f"connection {name!r} holds neither a token nor a private key",
            hint="set its password (token), private_key or key_file in Airflow",
        )
    return GitCredentials(user=connection.login or "git", token=connection.password or "", private_key=key)
