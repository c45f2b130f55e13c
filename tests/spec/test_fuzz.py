"""Whatever the bytes: a Pipeline or a SpecError, in a moment."""

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxiway.agents import registry
from taxiway.compiler.planning import plan
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline, load_policy
from taxiway.spec.params import faults

AGENTS = registry()
SHIPPED = Path(__file__).parents[2] / "pipelines"
SEED = (SHIPPED / "web_service.yaml").read_text()
POLICY = (SHIPPED / "policies" / "default.yaml").read_text()
POLICIES = {"default": load_policy(POLICY.encode(), "default.yaml", AGENTS)}
faults({"type": "string"}, "")  # its import is slow, once

WORDS = [
    "pipeline", "stages", "params", "schedule", "limits", "defaults", "retries", "agent", "with", "needs", "when", "gates", "recovers",
    "scaffold", "validate", "deploy", "monitor", "recover", "integrate", "5m", "80", "true", "null", "coverage.line >= 80", "{{ params.x }}",  # noqa: E501
    "{{", "}}", "{%", "[", "]", "{", "}", ":", ": ", "- ", "\n", "\n  ", "\n    ", "&a", "*a", "!!x", "<<", "---", "...", "#", "'", '"', "|", ">",  # noqa: E501
    "\t", "\x00", "\x85", "\u2028", "é", "0x1f", "1e9", ".nan", "yes", "~", "?", ",", "@daily", "%YAML 1.1",
]  # fmt: skip
yamlish = st.lists(st.sampled_from(WORDS), max_size=60).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw, seed):
    text = seed
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.sampled_from(WORDS) | st.text(max_size=4) | st.just("")) + text[end:]
    return text


@st.composite
def one_value_changed(draw):
    """A valid file with any JSON value in the place of one of its values."""
    lines = SEED.splitlines()
    places = [i for i, line in enumerate(lines) if ": " in line and not line.startswith("#")]
    index = draw(st.sampled_from(places))
    lines[index] = lines[index].split(": ", 1)[0] + ": " + json.dumps(draw(json_values))
    return "\n".join(lines)


def _pipeline_or_error(content: bytes) -> None:
    try:
        pipeline = load_pipeline(content, "p.yaml", AGENTS, POLICIES)
    except SpecError as error:
        assert error.problems  # noqa: PT017 - either may happen
        assert "\x1b" not in str(error)  # noqa: PT017 - either may happen
        assert "\x00" not in str(error)  # noqa: PT017 - either may happen
    else:
        found = plan(pipeline, AGENTS)
        assert type(found).from_json(found.to_json()) == found


SETTINGS = settings(max_examples=150, deadline=5000, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(st.binary(max_size=400))
def test_any_bytes(content):
    _pipeline_or_error(content)


@SETTINGS
@given(yamlish)
def test_any_yamlish_text(text):
    _pipeline_or_error(text.encode())


@SETTINGS
@given(mutated(SEED))
def test_a_valid_file_with_changes(text):
    _pipeline_or_error(text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(one_value_changed())
def test_a_valid_file_with_another_value(text):
    _pipeline_or_error(text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(mutated(POLICY) | yamlish)
def test_policies(text):
    try:
        load_policy(text.encode("utf-8", "surrogatepass"), "default.yaml", AGENTS)
    except SpecError as error:
        assert error.problems  # noqa: PT017 - either may happen


@SETTINGS
@given(mutated("{{ params.name if stages.validate.metrics['coverage.line'] > 90 else run.id | upper }}"))
def test_templates(text):
    quoted = text.encode("unicode_escape").decode().replace('"', "'").replace("\\", "")
    _pipeline_or_error(SEED.replace('"{{ params.name }}"', f'"{quoted}"').encode())
