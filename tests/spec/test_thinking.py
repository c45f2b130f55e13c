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


SONNET = "claude-sonnet-5-5"


@pytest.mark.parametrize(
    ("models", "place", "says", "hint"),
    [
        ("{model: none, connection: ours}", (2, 23), "'connection' says nothing where no model is named", "name one"),
        (f"{{model: none, fallback: {SONNET}}}", (2, 23), "'fallback' says nothing where no model is named", "name one"),
        ("{connection: ours, agents: {repair: {model: none}}}", (2, 10), "'connection' says nothing", "name one"),
        (f"{{model: {SONNET}, fallback: {SONNET}}}", (2, 46), f"'{SONNET}' is its own fallback", "another model"),
        (f"{{model: {SONNET}, agents: {{repair: {{fallback: {SONNET}}}}}}}", (2, 64), f"'{SONNET}' is its own fallback", "another model"),
        (f"{{model: {SONNET}, fallback: none}}", (2, 46), "'none' is no model to fall back to", "leave `fallback` out"),
        ("{model: None}", (2, 17), "'None' is no model", "did you mean none?"),
        (f"{{model: {SONNET}, prices: {{input: 1}}}}", (2, 52), "'input' must be a mapping", "prices: {my-model: {input: 1, output: 2}}"),
    ],
)
def test_models_that_make_no_sense(models, place, says, hint):
    problem = only_problem(lambda: load_policy(f"policy: p\nmodels: {models}\n".encode(), "p.yaml", AGENTS))
    assert (problem.at.line, problem.at.column) == place
    assert says in problem.problem
    assert hint in problem.hint


@pytest.mark.parametrize("word", ["connection: ours", "fallback: claude-haiku-4-5"])
def test_one_agent_with_a_model_is_enough_for_what_reaches_it(word):
    load_policy(f"policy: p\nmodels: {{{word}, agents: {{repair: {{model: {SONNET}}}}}}}\n".encode(), "p.yaml", AGENTS)


def test_what_is_broken_in_a_policy_hides_nothing_beside_it():
    policy = """\
policy: p
gates: {validat: [lint.errors == 0], validate: [1]}
waivers:
  - {agent: validate, metric: lint.eror, owner: me, expires: 2030-01-01, reason: because}
  - {agent: validate, metric: lint.errors, owner: me, expires: 2030-01-01}
  - {agent: scafold, metric: x, owner: me, expires: 2030-01-01, reason: because}
models: {model: m, agents: {repair: {modl: x}, scafold: {model: x}, deploy: {model: x}}}
"""
    for text, more in ((policy, [(2, "wrong-type")]), (policy.replace("[1]", "['tests.failed == 0']"), [(4, "unknown-metric")])):
        with pytest.raises(SpecError) as refused:
            load_policy(text.encode(), "p.yaml", AGENTS)
        found = [(p.at.line, p.rule) for p in refused.value.problems]
        shared = [(2, "unknown-agent"), (5, "missing-key"), (6, "unknown-agent")]
        shared += [(7, "unknown-key"), (7, "unknown-agent"), (7, "idle-model")]
        assert sorted(found) == sorted([*shared, *more])


@pytest.mark.parametrize(
    ("reason", "says", "hint"),
    [
        ("x", "'reason' is shorter than 3 characters: 'x'", "write more"),
        ("''", "'reason' is empty", "write something, or remove the key"),
        ("x" * 501, f"'reason' is longer than 500 characters: '{'x' * 57}...'", "shorten it"),
    ],
    ids=["short", "empty", "long"],
)
def test_texts_of_another_length(reason, says, hint):
    waiver = f"{{agent: validate, metric: tests.failed, owner: me, expires: 2030-01-01, reason: {reason}}}"
    problem = only_problem(lambda: load_policy(f"policy: p\nwaivers: [{waiver}]\n".encode(), "p.yaml", AGENTS))
    assert (problem.problem, problem.hint) == (says, hint)
