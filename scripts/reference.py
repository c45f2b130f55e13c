"""Write the generated parts of docs/reference.md anew, or say with --check that they are stale.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

from taxiway.agents import BUILT_IN, Agent
from taxiway.cli import app
from taxiway.cli.declared import default_of, takes
from taxiway.manifest import EndToEnd, Install, Manifest, Needed, Tests
from taxiway.spec import models, places
from taxiway.spec.extends import TemplateFileSpec
from taxiway.spec.templates import RUN_FIELDS, STAGE_FIELDS
from taxiway.spec.values import CRON_PRESETS, GateForm

PLACE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMMANDS_HIDDEN = {"--help"}


def main(arguments: list[str]) -> int:
    """1 where --check finds stale parts."""
    text = PLACE.read_text(encoding="utf-8")
    fresh = filled(text)
    if "--check" not in arguments:
        PLACE.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != text:
        print(f"{PLACE.name} is stale; write it with: .venv/bin/python scripts/reference.py", file=sys.stderr)
    return int(fresh != text)


def filled(text: str) -> str:
    """`text` with every generated part written anew; KeyError for one that nobody writes."""
    return _PART.sub(lambda m: f"{m[1]}\n{PARTS[m[2]]().strip()}\n\n{m[3]}", text)


# --- models ---------------------------------------------------------------------------------------


def fields(model: type[BaseModel]) -> str:
    """A model as a table: field, what it takes, default, meaning."""
    schema = model.model_json_schema(by_alias=True)
    rows = []
    for name, info in model.model_fields.items():
        word = info.alias or name
        rows.append((f"`{word}`", takes(schema["properties"][word], _title, info), default_of(info), info.description or ""))
    return _table(("field", "takes", "default", "meaning"), rows)


def _title(name: str) -> str:
    word = {"GateForm": "gate form", "AgentModelSpec": "agent model"}.get(name, name.removesuffix("Spec").lower())
    return f"[{word}](#{word.replace(' ', '-')})"


# --- agents and commands --------------------------------------------------------------------------


def agents() -> str:
    """Every built-in agent: inputs, metrics, default gates, outputs."""
    return "\n\n".join(_agent(agent) for agent in BUILT_IN)


def _agent(agent: Agent) -> str:
    parts = [f"### `{agent.name}`", agent.summary]
    touches = re.sub(r"{(.+?)}", r"`\1`", agent.touches)
    facts = ["Changes nothing." if touches == "nothing" else f"What it changes: {touches}."]
    facts += [f"Needs {' or '.join(f'`{name}`' for name in agent.after)} before it."] if agent.after else []
    parts.append(" ".join(facts))
    parts.append(fields(agent.inputs) if agent.inputs.model_fields else "It takes no `with`.")
    nested = [
        i.annotation for i in agent.inputs.model_fields.values() if isinstance(i.annotation, type) and issubclass(i.annotation, BaseModel)
    ]
    parts += [text for model in nested for text in (f"#### {model.__name__}", str(model.__doc__).split("\n\n")[0], fields(model))]
    if agent.metrics:
        gates: dict[str, list[str]] = {}
        for gate in agent.default_gates():
            gates.setdefault(gate.split()[0], []).append(f"`{gate.split(maxsplit=1)[1]}`")
        rows = [(f"`{n}`", m.description, m.unit, ", ".join(gates.get(n, ()))) for n, m in agent.metrics.items()]
        parts.append(_table(("metric", "meaning", "unit", "default gate"), rows))
    if agent.outputs:
        parts.append(f"Outputs: {', '.join(f'`{name}`' for name in agent.outputs)}.")
    return "\n\n".join(parts)


def commands() -> str:
    """Every command of `taxiway` with its first sentence, then every option, with the commands that take it."""
    rows: list[tuple[str, ...]] = []
    options: dict[tuple[str, str], list[str]] = {}
    for name, command in _walk(typer.main.get_command(app), ()):
        words = " ".join(["taxiway", name, *(_argument(p) for p in command.params if not _option(p))])
        rows.append((f"`{words}`", re.split(r"(?<=\.)\s", " ".join((command.help or "").split()))[0]))
        for p in command.params:
            if _option(p) and not _COMMANDS_HIDDEN & set(p.opts):
                key = (", ".join(f"`{o}`" for o in p.opts), " ".join((p.help or "").split()))
                options.setdefault(key, []).append(f"`{name}`")
    taken = [(", ".join(names), *key) for key, names in options.items()]
    return _table(("command", "does"), rows) + "\n\n" + _table(("command", "option", "meaning"), taken)


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


def _option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _argument(parameter: Any) -> str:
    word = (parameter.metavar or parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    return word if parameter.required else f"[{word}]"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _words(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


PARTS: Mapping[str, Callable[[], str]] = {
    "pipeline": lambda: fields(models.PipelineSpec),
    "stage": lambda: fields(models.StageSpec),
    "template": lambda: fields(TemplateFileSpec),
    "param": lambda: fields(models.ParamSpec),
    "budget": lambda: fields(models.BudgetSpec),
    "repair": lambda: fields(models.RepairSpec),
    "models": lambda: fields(models.ModelsSpec),
    "agent-model": lambda: fields(models.AgentModelSpec),
    "price": lambda: fields(models.PriceSpec),
    "schedule": lambda: fields(models.ScheduleSpec),
    "asset": lambda: fields(models.AssetSpec),
    "presets": lambda: f"Presets: {_words(CRON_PRESETS)}.",
    "limits": lambda: fields(models.LimitsSpec),
    "defaults": lambda: fields(models.DefaultsSpec),
    "retries": lambda: fields(models.RetriesSpec),
    "gate-form": lambda: fields(GateForm),
    "policy": lambda: fields(models.PolicySpec),
    "repository": lambda: fields(models.RepositorySpec),
    "waiver": lambda: fields(models.WaiverSpec),
    "scope": lambda: (
        f"`run` has {_words(RUN_FIELDS)}. `stages.<id>` (`stages.<id>.<cell>` with a matrix) has "
        f"{_words(STAGE_FIELDS)}. `matrix` has the stage's own axes."
    ),
    "later": lambda: _table(("in a", "not supported yet"), [(kind, _words(sorted(names))) for kind, names in places.LATER.items()]),
    "manifest": lambda: fields(Manifest),
    "install": lambda: fields(Install),
    "tests": lambda: fields(Tests),
    "needed": lambda: fields(Needed),
    "endtoend": lambda: fields(EndToEnd),
    "agents": agents,
    "commands": commands,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
