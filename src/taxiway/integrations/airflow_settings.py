"""What the embedded Airflow is told: its configuration file, its secrets, the environment of its processes."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from taxiway.errors import OperatorError
from taxiway.home import HOME_VARIABLE, Home

__all__ = ["MARK", "USER", "Secrets", "Settings", "configuration", "environment", "foreign", "secrets_of", "write_private"]

USER = "admin"
MARK = "AIRFLOW_HOME"
Settings = Mapping[str, Mapping[str, str]]
"""Section -> option -> value, as in airflow.cfg."""

_BUNDLE = "taxiway_airflow.bundle.PipelineBundle"


@dataclass(frozen=True)
class Secrets:
    """Made once, at random, for one home."""

    password: str
    jwt: str
    session: str
    fernet: str


def secrets_of(home: Home) -> Secrets:
    """The secrets of this home; made, readable by this user alone, where there are none."""
    path = home.airflow / "secrets.json"
    try:
        return Secrets(**json.loads(path.read_text()))
    except FileNotFoundError:
        made = Secrets(
            password=secrets.token_urlsafe(18),
            jwt=secrets.token_urlsafe(48),
            session=secrets.token_urlsafe(48),
            fernet=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        )
        write_private(path, json.dumps(asdict(made)))
        return made
    except (OSError, ValueError, TypeError) as error:
        raise OperatorError(f"cannot read {path}: {error}", hint=f"stop Airflow, then remove {home.airflow}: it is made anew") from error


def configuration(home: Home, pipelines: Path, port: int, extra: Settings) -> str:
    """The text of airflow.cfg; `extra` overrides. Raises OperatorError where a path cannot be written down in it."""
    folder, own = home.airflow, secrets_of(home)
    url = f"http://127.0.0.1:{port}"
    bundle = {"source": str(pipelines), "home": str(home.path), "refresh_interval": 2}
    sections: dict[str, dict[str, str]] = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "8",
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",
            "dags_folder": str(folder / "dags"),
            "fernet_key": own.fernet,
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": str(folder / "passwords.json"),
            "execution_api_server_url": f"{url}/execution/",
            "min_serialized_dag_update_interval": "1",
            # The fully qualified name, the default, asks a name server.
            "hostname_callable": "socket.gethostname",
        },
        # SQLite has one writer at a time; the rest wait, on a busy machine for longer than its own 5 s.
        "database": {"sql_alchemy_conn": f"sqlite:///{folder / 'airflow.db'}?timeout=60"},
        "logging": {"base_log_folder": str(folder / "logs"), "colored_console_log": "False"},
        "api": {"host": "127.0.0.1", "port": str(port), "base_url": url, "workers": "1", "secret_key": own.session},
        "api_auth": {"jwt_secret": own.jwt},
        "scheduler": {
            "scheduler_idle_sleep_time": "0.2",
            "catchup_by_default": "False",
            # All runs on this machine: what does not answer for a minute is dead.
            "task_instance_heartbeat_timeout": "60",
            "orphaned_tasks_check_interval": "60",
        },
        "workers": {"execution_api_timeout": "30"},
        "dag_processor": {
            "dag_bundle_config_list": json.dumps([{"name": "pipelines", "classpath": _BUNDLE, "kwargs": bundle}]),
            "refresh_interval": "2",
            "bundle_refresh_check_interval": "1",
            # A changed file is read at once whatever this says, and one that is not changed says the same as before: at Airflow's 30 s
            # hundreds of pipelines keep a core busy for nothing.
            "min_file_process_interval": "600",
            "parsing_processes": "1",
        },
        "triggerer": {},
    }
    for section, options in extra.items():
        sections.setdefault(section, {}).update(options)
    return "".join(f"[{name}]\n" + "".join(_line(k, v) for k, v in options.items()) + "\n" for name, options in sections.items())


def _line(option: str, value: str) -> str:
    # Airflow expands $NAME and ~ in values, and SQLAlchemy ends a file name at "?": none of it can be escaped.
    if any(c in value for c in "\n\r$") or (option == "sql_alchemy_conn" and (value.count("?") > 1 or any(c in value for c in "#%"))):
        raise OperatorError(f"Airflow's setting {option} cannot hold {value!r}", hint=f"set {HOME_VARIABLE} to a plainer path")
    return f"{option} = {value.replace('%', '%%')}\n"


def environment(home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Airflow's processes: the caller's without other Airflows' settings."""
    kept = {k: v for k, v in environ.items() if k not in foreign(environ) and k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {
        MARK: str(home.airflow),
        HOME_VARIABLE: str(home.path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        # Without it a process that renames itself overwrites its environment, by which leftovers are known.
        "SPT_NOENV": "1",
    }


def foreign(environ: Mapping[str, str]) -> list[str]:
    """Variables that configure another Airflow; connections and variables for tasks (AIRFLOW_CONN_, AIRFLOW_VAR_) are not."""
    return sorted(k for k in environ if k.startswith("AIRFLOW__") or k in ("AIRFLOW_HOME", "AIRFLOW_CONFIG"))


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only this user can read it. Raises OperatorError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OperatorError(
            f"cannot write {path}: {error.strerror or error}", hint="free disk space, or mend the folder's rights"
        ) from error
