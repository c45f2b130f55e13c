"""The example of docs/testing-pipelines.md, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from taxiway.agents import registry
from taxiway.testing.cases import CaseSpec, CostSpec, Expected, ReplySpec, load_cases

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing-pipelines.md").read_text()
BLOCKS = re.findall(r"^```yaml(?: other)?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_is_a_good_file(tmp_path):
    pipeline, policy, cases = BLOCKS
    for name, text in (("pipelines/feature_checks.yaml", pipeline), ("pipelines/policies/thinking.yaml", policy), ("tests/it.yaml", cases)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = load_cases(tmp_path / "tests" / "it.yaml", registry())
    assert [len(case.spec.replies) for case in found] == [2, 2]


def test_every_key_of_a_case_is_described():
    wanted = {f"`{name}`" for model in (CaseSpec, ReplySpec, CostSpec) for name in model.model_fields if name != "expect"}
    wanted |= {f"`expect: {name}`" for name in Expected.model_fields}
    assert sorted(word for word in wanted if word not in PAGE) == []


def test_the_python_is_a_test_of_ours():
    ((name, text),) = re.findall(r"^```python file=(\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert text in (ROOT / name).read_text()
