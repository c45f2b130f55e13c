"""Budgets of pipelines below those of their policy, and prices that nobody knows."""

import pytest

from taxiway.agents import registry
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline, load_policy
from taxiway.spec.budget import DEFAULT_USD, settled_budget
from taxiway.spec.models import BudgetSpec

AGENTS = registry()
STAGES = "stages:\n  v: {agent: validate}\n"


def load(budget="", policy=""):
    policies = {"default": load_policy(f"policy: default\n{policy}".encode(), "default.yaml", AGENTS)}
    return load_pipeline(f"pipeline: p\n{budget}{STAGES}".encode(), "p.yaml", AGENTS, policies)


@pytest.mark.parametrize(
    ("budget", "policy", "rule", "word"),
    [
        ("budget: {usd: 9}\n", "budget: {usd: 5}\n", "loosens-policy", "9 is more than policy 'default' allows: 5"),
        ("budget: {tokens: 9000}\n", "budget: {tokens: 5000}\n", "loosens-policy", "9000 is more"),
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


def test_an_agent_of_the_policys_models_is_one():
    with pytest.raises(SpecError, match="unknown agent 'scafold'"):
        load("", "models: {agents: {scafold: {effort: low}}}\n")


def test_what_is_left_out_comes_from_the_policy_and_nobody_spends_without_a_bound():
    assert settled_budget(BudgetSpec(usd=1), BudgetSpec(usd=5, tokens=9000, warn_at=0.5)) == (1, 9000, 0.5)
    assert settled_budget(BudgetSpec(tokens=9000), None) == (None, 9000, 0.8)
    assert settled_budget(None, None) == (DEFAULT_USD, None, 0.8)
