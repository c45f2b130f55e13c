"""What policies say of models, held against agents and stages that ask one."""

import pytest

from taxiway.agents import registry
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline, load_policy

AGENTS = registry()
NONE = "models: {model: none}\n"
MODEL = "models: {model: claude-sonnet-5-5}\n"
STAGES = """\
pipeline: p
params: {how: {type: string, default: ask_model}}
stages:
"""
FIX = "  fix: {agent: scaffold, with: {template: none, bug: It fails.}}\n"
BUILD = "  build: {agent: scaffold, with: {name: greeter, requirements: A page.}}\n"
WRITE = "  write: {agent: write_e2e, with: {requirements: The page greets by name.}}\n"
REPAIR = "  check: {agent: validate, repair: {attempts: 1}}\n"
MERGE = "  merge: {agent: integrate, with: {conflicts: ask_model}}\n"
WHY = "  check: {agent: validate}\n  why: {agent: diagnose, recovers: [check]}\n"


def load(stages, policy):
    policies = {"default": load_policy(f"policy: default\n{policy}".encode(), "default.yaml", AGENTS)}
    return load_pipeline(f"{STAGES}{stages}".encode(), "p.yaml", AGENTS, policies)


def only_problem(act):
    with pytest.raises(SpecError) as refused:
        act()
    (problem,) = refused.value.problems
    return problem


@pytest.mark.parametrize(
    ("stages", "who", "place", "comes"),
    [
        (FIX, "scaffold", (4, 16), "this stage will fail"),
        (WRITE, "write_e2e", (4, 18), "this stage will fail"),
        (WHY, "diagnose", (5, 16), "this stage will fail"),
    ],
    ids=["no template", "write_e2e", "diagnose"],
)
@pytest.mark.parametrize("policy", [NONE, "models: {model: claude-sonnet-5-5, agents: {WHO: {model: none}}}\n", "models: {}\n"])
def test_no_model_for_what_asks_one(stages, who, place, comes, policy):
    problem = only_problem(lambda: load(stages, policy.replace("WHO", who)))
    assert (problem.rule, problem.at.line, problem.at.column) == ("no-model", *place)
    assert problem.problem == f"policy 'default' names no model for {who}: {comes}"
    assert f"`models: {{agents: {{{who}: {{model: ...}}}}}}`" in problem.hint


@pytest.mark.parametrize(
    ("stages", "policy"),
    [
        *((stages, policy) for stages in (FIX, WRITE, REPAIR, MERGE, WHY) for policy in ("", MODEL)),
        (REPAIR, "models: {model: none, agents: {repair: {model: claude-sonnet-5-5}}}\n"),
        *((stages, NONE) for stages in (REPAIR, MERGE, BUILD)),
        ("  merge: {agent: integrate, with: {conflicts: '{{ params.how }}'}}\n", NONE),
        ("  check: {agent: validate}\n", NONE),
    ],
)
def test_what_works_without_one_or_may_find_one(stages, policy):
    """A policy that says nothing of models, and one that names a model whose key the workers may have or not."""
    load(stages, policy)


BY_SCAFFOLD = "  check: {agent: validate, repair: {agent: scaffold, with: {template: none, requirements: A page.}}}\n"


@pytest.mark.parametrize("policy", [NONE, "models: {agents: {repair: {model: claude-sonnet-5-5}}}\n"])
def test_no_model_for_an_agent_that_repairs_with_one(policy):
    problem = only_problem(lambda: load(BY_SCAFFOLD, policy))
    assert (problem.rule, problem.at.line, problem.at.column) == ("no-model", 4, 44)
    assert problem.problem == "policy 'default' names no model for scaffold: nothing will be repaired"
    assert problem.hint.endswith("or remove the repair")


@pytest.mark.parametrize("policy", ["", MODEL, "models: {agents: {scaffold: {model: claude-sonnet-5-5}}}\n"])
def test_an_agent_that_repairs_may_find_a_model(policy):
    load(BY_SCAFFOLD, policy)


def test_an_agent_that_never_asks_has_no_model():
    problem = only_problem(lambda: load_policy(b"policy: p\nmodels: {agents: {deploy: {effort: low}}}\n", "p.yaml", AGENTS))
    assert (problem.rule, problem.at.line, problem.at.column) == ("idle-model", 2, 19)
    assert problem.problem == "agent 'deploy' never asks a model"
    assert problem.hint == "those that ask a model: scaffold, write_e2e, integrate, diagnose, repair"


def test_a_misspelt_repair_is_known():
    problem = only_problem(lambda: load_policy(b"policy: p\nmodels: {agents: {repairs: {effort: low}}}\n", "p.yaml", AGENTS))
    assert (problem.problem, problem.hint) == ("unknown agent 'repairs'", "did you mean 'repair'?")


def test_who_mends_what_validate_refuses_is_named():
    problem = only_problem(lambda: load_policy(b"policy: p\nmodels: {agents: {validate: {effort: low}}}\n", "p.yaml", AGENTS))
    assert problem.hint.endswith("; what mends the code after validate is repair")
