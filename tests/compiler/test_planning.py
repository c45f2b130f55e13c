"""What the plan settles: order, gates, verdicts that merging and deploying need, retries."""

from dataclasses import replace

import pytest

from taxiway.agents import registry
from taxiway.compiler.plan import Plan
from taxiway.compiler.planning import plan
from taxiway.spec import Threshold, implies, load_pipeline, load_policy, seconds
from taxiway.spec.graph import ancestors, cycle, order, predecessors

AGENTS = registry()


def planned(stages: str, policy: str = "", more: str = "") -> Plan:
    text = f"pipeline: p\n{more}stages:\n" + "\n".join(f"  {line}" for line in stages.splitlines())
    policies = {"default": load_policy(f"policy: default\n{policy}".encode(), "default.yaml", AGENTS)} if policy else {}
    return plan(load_pipeline(text.encode(), "folder/p.yaml", AGENTS, policies), AGENTS)


CHAIN = """s: {agent: scaffold, with: {name: greeter}}
v: {agent: validate}
i: {agent: integrate}
d: {agent: deploy}
r: {agent: recover, recovers: [d]}
m: {agent: monitor}"""


def test_a_stage_follows_the_one_above_that_is_no_recovery():
    assert {s.id: s.needs for s in planned(CHAIN).stages} == {
        "s": (),
        "v": ("s",),
        "i": ("v",),
        "d": ("i",),
        "r": ("d",),
        "m": ("d",),
    }


def test_what_explains_a_failure_stands_beside_the_chain():
    found = planned("v: {agent: validate}\nw: {agent: diagnose, recovers: [v]}\ne: {agent: e2e}")
    assert {s.id: s.needs for s in found.stages} == {"v": (), "w": ("v",), "e": ("v",)}
    assert [s.id for s in found.stages if s.after_failure] == ["w"]
    assert found.stage("w").requires == ()


def test_stages_stand_after_what_they_need():
    stages = "a: {agent: validate, needs: [c]}\nb: {agent: validate, needs: []}\nc: {agent: validate, needs: [b]}"
    assert [s.id for s in planned(stages).stages] == ["b", "c", "a"]


def test_merging_and_deploying_require_the_gated_stages_before_them():
    found = planned(CHAIN, "gates: {validate: [coverage.line >= 80]}\n")
    assert {s.id: (s.requires, s.mandatory) for s in found.stages if s.requires} == {"i": (("v",), ("v",)), "d": (("v",), ("v",))}
    assert {s.id: s.mandatory for s in planned(CHAIN).stages if s.requires} == {"i": (), "d": ()}


def test_watching_a_service_is_no_verdict_on_code():
    found = planned(CHAIN + "\nd2: {agent: deploy}")
    assert found.stage("d2").requires == ("v",)


def gates(spec: str, policy: str = "") -> list[str]:
    stage = planned(f"v: {{agent: validate, gates: {spec}}}", policy).stage("v")
    return [
        f"{g.metric} {g.op} {g.threshold:g} {g.source}{'' if g.blocking else ' soft'}{' waived' if g.waiver else ''}" for g in stage.gates
    ]


FLOOR = "gates: {validate: [coverage.line >= 80]}\n"
WAIVER = "waivers: [{agent: validate, metric: coverage.line, owner: ann, expires: 2027-01-01, reason: legacy}]\n"


@pytest.mark.parametrize(
    ("spec", "policy", "expected"),
    [
        ("[]", "", []),
        ("[coverage.line >= 90]", "", ["coverage.line >= 90 spec"]),
        ("[]", FLOOR, ["coverage.line >= 80 policy"]),
        ("[coverage.line >= 90]", FLOOR, ["coverage.line >= 90 spec"]),
        ("[coverage.line > 80]", FLOOR, ["coverage.line > 80 spec"]),
        ("[coverage.line >= 80]", FLOOR, ["coverage.line >= 80 policy"]),
        ("[coverage.line < 99]", FLOOR, ["coverage.line < 99 spec", "coverage.line >= 80 policy"]),
        (
            "[{metric: coverage.line, at_least: 95, blocking: false}]",
            FLOOR,
            ["coverage.line >= 80 policy", "coverage.line >= 95 spec soft"],
        ),
        ("[]", FLOOR + WAIVER, ["coverage.line >= 80 policy waived"]),
        ("[coverage.line >= 90]", FLOOR + WAIVER, ["coverage.line >= 90 spec"]),
        ("[coverage.line >= 80]", FLOOR + WAIVER, ["coverage.line >= 80 spec"]),
    ],
)
def test_the_tightest_gate_of_each_direction_counts(spec, policy, expected):
    assert [g for g in gates(spec, policy) if g.startswith("coverage.line")] == expected


DEFAULT = {"tests", "lint", "types", "security", "secrets"}
ALL = DEFAULT | {"format", "complexity", "duplication"}


@pytest.mark.parametrize(
    ("given", "policy", "expected"),
    [
        ("", "", DEFAULT),
        ("with: {checks: [lint]}", "", {"lint"}),
        ("with: {checks: [tests, types, tests]}", "", {"tests", "types"}),
        ("with: {checks: [lint, tests]}", FLOOR, {"lint", "tests", "coverage"}),
        ("with: {checks: [lint]}", FLOOR + WAIVER, {"lint", "coverage"}),
        ("with: {strict: true}", "", DEFAULT),
        ('with: {checks: "{{ params.checks }}"}', "", ALL),
        ('with: {checks: [lint, "{{ params.check }}"]}', "", ALL),
    ],
    ids=[
        "none said",
        "one",
        "two",
        "the policy's floor stays",
        "and one that is waived",
        "another input",
        "a template",
        "a template among others",
    ],
)
def test_default_gates_act_where_their_check_is_chosen(given, policy, expected):
    params = "params: {checks: {type: array, default: [lint]}, check: {type: string, default: lint}}\n"
    planned_ = planned(f"v: {{agent: validate, {given}}}".replace(", }", "}"), policy, params)
    found = {g.metric.split(".")[0] for g in planned_.stage("v").gates}
    # Where a template chooses, checks that come later act as well.
    assert found == expected if expected is not ALL else found >= ALL


@pytest.mark.parametrize(
    ("strict", "loose", "expected"),
    [
        ((">=", 80), (">=", 70), True),
        ((">=", 80), (">=", 80), True),
        ((">=", 80), (">", 80), False),
        ((">", 80), (">=", 80), True),
        ((">=", 70), (">=", 80), False),
        (("<=", 3), ("<=", 5), True),
        (("<", 5), ("<=", 5), True),
        (("<=", 5), ("<", 5), False),
        (("==", 0), ("<=", 3), True),
        (("==", 0), ("<=", 0), True),
        (("<=", 0), ("==", 0), True),
        (("<=", 3), ("==", 0), False),
        ((">", 0), ("!=", 0), True),
        ((">=", 0), ("!=", 0), False),
        (("!=", 1), ("!=", 1), True),
        (("!=", 1), (">", 1), False),
        ((">=", 1), ("<=", 1), False),
    ],
)
def test_implies(strict, loose, expected):
    assert implies(Threshold("m", *strict), Threshold("m", *loose)) is expected
    assert not implies(Threshold("m", *strict), Threshold("n", *loose))


def test_retries_settle_field_by_field():
    more = "defaults: {timeout: 90s, retries: {attempts: 2, factor: 1}}\n"
    stage = planned("v: {agent: validate, retries: {attempts: 5, most: 1m}}", more=more).stage("v")
    assert (stage.timeout_s, stage.retries.attempts, stage.retries.first_s, stage.retries.factor, stage.retries.most_s) == (90, 5, 2, 1, 60)


def test_settings_without_a_word():
    found = planned(CHAIN)
    assert (found.limits.runs, found.limits.stages, found.limits.duration_s, found.schedule) == (4, 4, 3600, None)
    retries = found.stage("v").retries
    assert (retries.attempts, retries.first_s, retries.factor, retries.most_s) == (3, 2, 2, 30)


def test_uses_are_the_stages_that_expressions_name():
    stages = CHAIN + "\nx: {agent: validate, when: stages.d.outputs.url != '' and stages.v.metrics.coverage.line > 9}"
    assert planned(stages).stage("x").uses == ("d", "v")


def test_what_a_stage_touches_names_its_inputs():
    found = planned(CHAIN.replace("i: {agent: integrate}", "i: {agent: integrate, with: {into: release}}"))
    assert "release" in found.stage("i").touches
    assert "blue-green" in found.stage("d").touches


def test_the_plan_is_the_same_each_time_and_survives_json():
    found = planned(CHAIN, FLOOR + WAIVER, "schedule: '@daily'\n")
    assert found.to_json() == planned(CHAIN, FLOOR + WAIVER, "schedule: '@daily'\n").to_json()
    assert Plan.from_json(found.to_json()) == found
    assert found.source == "p.yaml"
    assert found.digest != planned(CHAIN, FLOOR, "schedule: '@daily'\n").digest


def test_another_version_of_an_agent_that_repairs_is_another_plan():
    text = b"pipeline: p\nstages: {v: {agent: validate, repair: {agent: update_dependencies}}}\n"
    newer = {**AGENTS, "update_dependencies": replace(AGENTS["update_dependencies"], version="9")}
    one, other = (plan(load_pipeline(text, "p.yaml", agents, {}), agents) for agents in (AGENTS, newer))
    assert one.digest != other.digest


@pytest.mark.parametrize(("text", "expected"), [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0s", 0)])
def test_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "5w", "s", "1e3s", "5ss"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_graph():
    edges = predecessors({"a": None, "b": None, "r": None, "c": None, "d": []}, {"r": ["a", "b"]})
    assert edges == {"a": (), "b": ("a",), "r": ("a", "b"), "c": ("b",), "d": ()}
    assert order(edges) == ["a", "b", "r", "c", "d"]
    assert ancestors(edges)["c"] == {"a", "b"}
    assert cycle(edges) == []
    assert cycle({"a": ["c"], "b": ["a"], "c": ["b"]}) == ["a", "b", "c", "a"]
    # Many stages, all in a row: no recursion.
    assert cycle({str(i): [str(i - 1)] if i else [] for i in range(5000)}) == []


MODEL = "models: {model: claude-sonnet-5-5}\n"
REPAIRED = "v: {agent: validate, repair: {attempts: 1}}"
BUILT = "s: {agent: scaffold, with: {name: greeter, requirements: A page.}}"


@pytest.mark.parametrize(
    ("stages", "policy", "written"),
    [
        (REPAIRED, MODEL, True),
        (REPAIRED, "", False),
        (BUILT, "models: {model: none}\n", False),
        (BUILT, "models: {model: claude-sonnet-5-5, agents: {scaffold: {model: none}}}\n", False),
        (REPAIRED, "models: {model: none, agents: {repair: {model: claude-sonnet-5-5}}}\n", True),
        ("v: {agent: validate, repair: {agent: update_dependencies}}", MODEL, False),
        ("v: {agent: validate, repair: {agent: scaffold, with: {template: none, bug: It is late.}}}", MODEL, True),
        (CHAIN, MODEL, False),
        ("i: {agent: integrate, with: {conflicts: ours}}", MODEL, False),
        ("i: {agent: integrate, with: {conflicts: '{{ params.how }}'}}", MODEL, True),
    ],
    ids=[
        "repair",
        "no policy",
        "no model",
        "none for it",
        "one for repair alone",
        "no model's repair",
        "an agent that thinks",
        "no thinking",
        "a side wins",
        "who knows",
    ],
)
def test_code_that_a_model_may_write_is_not_trusted(stages, policy, written):
    more = "params: {how: {type: string, default: fail}}\n"
    found = planned(stages, f"unisolated: true\nrepositories: [{{url: 'https://git.example/*', trusted: true}}]\n{policy}", more)
    found = Plan.from_json(found.to_json())
    assert found.written_by_models is written
    assert [found.trusts(url) for url in ("", "https://git.example/a", "https://other.example/a")] == [not written, not written, False]
    assert found.unisolated() is not written


@pytest.mark.parametrize(
    ("name", "given", "thinks"),
    [
        ("scaffold", {"name": "greeter"}, False),
        ("scaffold", {"requirements": ""}, False),
        ("scaffold", {"requirements": "A page."}, True),
        ("scaffold", {"template": "none", "bug": "It fails."}, True),
        ("scaffold", {"requirements": "{{ params.requirements }}"}, True),
        ("integrate", {}, False),
        ("integrate", {"conflicts": "theirs"}, False),
        ("integrate", {"conflicts": "ask_model"}, True),
        ("validate", {"checks": ["tests"]}, False),
    ],
)
def test_agents_say_whether_they_let_a_model_change_code(name, given, thinks):
    assert AGENTS[name].thinks(given) is thinks
