"""The same chain of seven steps, written as a pipeline, as a hand-written DAG file, and for dag-factory."""

from __future__ import annotations

from pathlib import Path

SPEC = """pipeline: {name}
description: From a name to a healthy web service.
owner: platform
tags: [service]
params:
  name: {{type: string, pattern: "^[a-z][a-z0-9-]{{1,39}}$", default: greeter, description: Name of the service}}
  repository: {{type: string, default: "", description: "Git URL; empty starts a new repository"}}
limits: {{runs: 4, stages: 4, duration: 1h}}
defaults:
  timeout: 5m
  retries: {{attempts: 3, first: 2s, factor: 2, most: 30s}}
stages:
  scaffold:
    agent: scaffold
    with: {{template: python-service, name: "{{{{ params.name }}}}"}}
  validate:
    agent: validate
    with: {{checks: [format, lint, types, tests, security, secrets, complexity]}}
    gates: [coverage.line >= 90]
  e2e:
    agent: e2e
    gates: [a11y.serious == 0]
  integrate:
    agent: integrate
    with: {{into: main, strategy: squash}}
  deploy:
    agent: deploy
    with: {{target: local, strategy: blue-green, health: /healthz}}
  monitor:
    agent: monitor
    with: {{for: 10s, every: 500ms}}
    gates: [availability >= 0.99, latency.p95_ms < 500]
  rollback:
    agent: recover
    recovers: [deploy, monitor]
"""

# What a careful author writes by hand for the same: settings and edges as the compiled DAG has them, and the leaf that decides.
DAG = """from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param, TriggerRule

SETTINGS = dict(
    owner="platform",
    retries=2,
    retry_delay=timedelta(seconds=2),
    retry_exponential_backoff=2,
    max_retry_delay=timedelta(seconds=30),
    execution_timeout=timedelta(minutes=5),
)

with DAG(
    "{name}",
    description="From a name to a healthy web service.",
    doc_md="From a name to a healthy web service.",
    tags=["service"],
    default_args=SETTINGS,
    params={{
        "name": Param("greeter", description="Name of the service", type="string", pattern="^[a-z][a-z0-9-]{{1,39}}$"),
        "repository": Param("", description="Git URL; empty starts a new repository", type="string"),
    }},
    max_active_runs=4,
    max_active_tasks=4,
    catchup=False,
    schedule=None,
):
    scaffold = BashOperator(task_id="scaffold", bash_command="true", doc_md="Makes the project.")
    validate = BashOperator(task_id="validate", bash_command="true", doc_md="Checks the code.")
    e2e = BashOperator(task_id="e2e", bash_command="true", doc_md="Tests the page.")
    integrate = BashOperator(task_id="integrate", bash_command="true", doc_md="Merges.")
    deploy = BashOperator(task_id="deploy", bash_command="true", doc_md="Makes it live.")
    monitor = BashOperator(task_id="monitor", bash_command="true", doc_md="Watches it.")
    rollback = BashOperator(task_id="rollback", bash_command="true", doc_md="Undoes.", trigger_rule=TriggerRule.ONE_FAILED)
    outcome = BashOperator(task_id="outcome", bash_command="true", retries=0, trigger_rule=TriggerRule.ALL_DONE)
    scaffold >> validate >> e2e >> integrate >> deploy >> monitor
    [deploy, monitor] >> rollback
    [scaffold, validate, e2e, integrate, deploy, monitor, rollback] >> outcome
"""

_TASK = "{{task_id: {0}, operator: airflow.providers.standard.operators.bash.BashOperator, bash_command: 'true', doc_md: {0}{1}}}"
_CHAIN = ("scaffold", "validate", "e2e", "integrate", "deploy", "monitor")
_TASKS = [_TASK.format(task, f", dependencies: [{_CHAIN[i - 1]}]" if i else "") for i, task in enumerate(_CHAIN)]
_TASKS.append(_TASK.format("rollback", ", trigger_rule: one_failed, dependencies: [deploy, monitor]"))
_TASKS.append(_TASK.format("outcome", f", retries: 0, trigger_rule: all_done, dependencies: [{', '.join(_CHAIN)}, rollback]"))
FACTORY = """{name}:
  description: From a name to a healthy web service.
  doc_md: From a name to a healthy web service.
  tags: [service]
  default_args: {{owner: platform, retries: 2, retry_exponential_backoff: true}}
  params:
    name: {{default: greeter, type: string, description: Name of the service}}
    repository: {{default: "", type: string, description: Git URL}}
  max_active_runs: 4
  max_active_tasks: 4
  catchup: false
  schedule: null
  tasks:
    - """ + "\n    - ".join(t.replace("{", "{{").replace("}", "}}") for t in _TASKS)
LOADER = """from airflow.sdk import DAG
from dagfactory import load_yaml_dags

load_yaml_dags(globals_dict=globals(), config_filepath={path!r})
"""


def specs(folder: Path, count: int) -> None:
    """`count` pipelines."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"bench_{i}.yaml").write_text(SPEC.format(name=f"bench_{i}"))


def dags(folder: Path, count: int) -> None:
    """The same as hand-written DAG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"bench_{i}.py").write_text(DAG.format(name=f"bench_{i}"))


def factory(folder: Path, count: int) -> None:
    """The same for dag-factory: a YAML file and a module that loads it, so that each is parsed alone as the others are."""
    (folder / "yaml").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / "yaml" / f"bench_{i}.yaml"
        path.write_text(FACTORY.format(name=f"bench_{i}"))
        (folder / f"bench_{i}.py").write_text(LOADER.format(path=str(path)))
