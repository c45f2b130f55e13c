"""Budgets of pipelines below those of their policy, and prices that nobody knows."""

import pytest

from taxiway.agents import registry
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline, load_policy
from taxiway.spec.budget import DEFAULT_USD, settled_budget
from taxiway.spec.models import BudgetSpec

AGENTS = registry()
STAGES = "stages:\n  v: {agent: validate}\n"


def load(budget="", policy="", stages=STAGES):
    policies = {"default": load_policy(f"policy: default\n{policy}".encode(), "default.yaml", AGENTS)}
    return load_pipeline(f"pipeline: p\n{budget}{stages}".encode(), "p.yaml", AGENTS, policies)


@pytest.mark.parametrize(
    ("budget", "policy", "rule", "word"),
    [
        ("budget: {usd: 9}\n", "budget: {usd: 5}\n", "loosens-policy", "9 is more than policy 'default' allows: 5"),
        ("budget: {tokens: 9000}\n", "budget: {tokens: 5000}\n", "loosens-policy", "9000 is more"),
        (
            "budget: {tokens: 20_000_000}\n",
            "budget: {tokens: 10_000_000}\n",
            "loosens-policy",
            "20_000_000 is more",
        ),
        ("", "models: {model: unheard-of}\n", "unknown-price", "'unheard-of'"),
        ("budget: {usd: 1}\n", "models: {model: claude-sonnet-5-5, fallback: unheard-of}\n", "unknown-price", "'unheard-of'"),
        ("", "models: {agents: {scaffold: {model: unheard-of}}}\n", "unknown-price", "'unheard-of'"),
    ],
)
def test_it_refuses(budget, policy, rule, word):
    with pytest.raises(SpecError) as refused:
        load(budget, policy)
    (problem,) = refused.value.problems
    assert problem.rule == rule
    assert word in problem.problem


@pytest.mark.parametrize(
    ("budget", "policy"),
    [
        ("budget: {usd: 5}\n", "budget: {usd: 5}\n"),
        ("budget: {tokens: 9000}\n", "models: {model: unheard-of}\n"),
        ("", "models: {model: unheard-of, prices: {unheard-of: {input: 1, output: 1}}}\n"),
        ("", "models: {model: claude-sonnet-5-5-20260801}\n"),
        ("", "models: {agents: {repair: {effort: low}}}\n"),
    ],
)
def test_it_takes(budget, policy):
    load(budget, policy)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("claude-sonet-5-5", "did you mean 'claude-sonnet-5-5'? else add it to `models: prices:`"),
        ("my-coder-32", "did you mean 'my-coder-32b'? else"),
        ("llama", "add it to `models: prices:`"),
    ],
)
def test_a_model_that_nobody_knows_may_be_misspelt(name, hint):
    with pytest.raises(SpecError) as refused:
        load("", f"models: {{model: {name}, prices: {{my-coder-32b: {{input: 1, output: 1}}}}}}\n")
    (problem,) = refused.value.problems
    assert (problem.rule, problem.hint.startswith(hint)) == ("unknown-price", True)


REPAIRED = "stages:\n  v: {agent: validate, repair: {attempts: 1}}\n"
SONNET = "models: {model: claude-sonnet-5-5, max_tokens: 10000}\n"  # 10 USD for a million tokens written


@pytest.mark.parametrize(
    ("budget", "policy", "place", "says"),
    [
        (
            "budget: {usd: 0.05}\n",
            SONNET,
            (2, 15),
            "0.05 USD are too few for repair to ask once: an answer of 10000 tokens may cost 0.1",
        ),
        ("budget: {tokens: 9000}\n", SONNET, (2, 18), "9000 tokens are too few for repair to ask once: one answer may take 10000"),
        ("", "budget: {usd: 0.1}\n" + SONNET, (1, 11), "0.1 USD are too few for repair"),
        (
            "budget: {usd: 0.15}\n",
            SONNET.replace("max", "fallback: claude-opus-5-5, max"),
            (2, 15),
            "an answer of 10000 tokens may cost 0.2 USD",
        ),
        (
            "budget: {usd: 1}\n",
            SONNET.replace("10000}", "10000, agents: {repair: {max_tokens: 200_000}}}"),
            (2, 15),
            "an answer of 200_000 tokens may cost 2 USD",
        ),
    ],
    ids=["usd", "tokens", "the policy's", "a dearer fallback", "longer answers"],
)
def test_a_budget_below_one_call(budget, policy, place, says):
    with pytest.raises(SpecError) as refused:
        load(budget, policy, REPAIRED)
    (problem,) = refused.value.problems
    assert (problem.rule, (problem.at.line, problem.at.column)) == ("too-small-budget", place)
    assert says in problem.problem


@pytest.mark.parametrize(
    ("budget", "policy", "stages"),
    [
        ("budget: {usd: 0.11}\n", SONNET, REPAIRED),
        ("budget: {tokens: 10_001}\n", SONNET, REPAIRED),
        ("budget: {usd: 0.05}\n", SONNET, STAGES),
        ("budget: {usd: 0.05}\n", "", REPAIRED),
    ],
    ids=["just enough", "just enough tokens", "nobody asks", "no models"],
)
def test_a_budget_that_may_do(budget, policy, stages):
    load(budget, policy, stages)


def test_an_agent_of_the_policys_models_is_one():
    with pytest.raises(SpecError, match="unknown agent 'scafold'"):
        load("", "models: {agents: {scafold: {effort: low}}}\n")


def test_what_is_left_out_comes_from_the_policy_and_nobody_spends_without_a_bound():
    assert settled_budget(BudgetSpec(usd=1), BudgetSpec(usd=5, tokens=9000, warn_at=0.5)) == (1, 9000, 0.5)
    assert settled_budget(BudgetSpec(tokens=9000), None) == (None, 9000, 0.8)
    assert settled_budget(None, None) == (DEFAULT_USD, None, 0.8)


MENDED = "stages:\n  v: {agent: validate, repair: {agent: %s}}\n"


def test_a_budget_for_agents_that_repair():
    """One that asks no model needs none, and one that asks is held to what it asks."""
    thinking = MENDED % "scaffold, with: {template: none, bug: It is late.}"
    load("budget: {usd: 0.05}\n", SONNET, MENDED % "update_dependencies")
    with pytest.raises(SpecError, match="too few for scaffold to ask once"):
        load("budget: {usd: 0.05}\n", SONNET, thinking)
