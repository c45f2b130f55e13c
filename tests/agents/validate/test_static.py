"""format, security, secrets, complexity, duplication: what they count, and that no project talks them out of it."""

# ruff: noqa: E501 - each project stands on one line, as in a table
from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from projects import CODE, HONEST, MANIFEST, Bench, Installed, failing, write

from taxiway.ports import Environment

STATIC = ["format", "security", "secrets", "complexity", "duplication"]
# Put together here, so that no scanner of this repository takes them for real.
AWS = "AKIA" + "Q3EGRTZ7KLMN2XWP"
GITHUB = "ghp_" + "a8Kd72hfLq0ZxM3vN5tRb9Wc1Ye4Ug6Ip2Sj"
RANDOM = "q8Zr2Lx" + "0Vn5Tt7Kw3Yb9"

UGLY = "x = {  'a':1 }\n"
SHELL = "import subprocess\n\n\ndef run(command: str) -> None:\n    subprocess.call(command, shell=True)\n"
TANGLED = "def tangled(n: int) -> int:\n" + "".join(f"    if n == {i}:\n        return {i + 7}\n" for i in range(12)) + "    return n\n"
BLOCK = "".join(f"    total += weigh({i}, total)\n" for i in range(8))
COPIED = f"def one(total: int) -> int:\n{BLOCK}    return total\n\n\ndef two(total: int) -> int:\n{BLOCK}    return -total\n"
DEEP = "x = " + "(" * 3000 + ")" * 3000 + "\n"


def src(text: str, more: dict[str, str] | None = None) -> dict[str, str]:
    return HONEST | {"src/tiny/more.py": text} | (more or {})


def test_an_honest_project(bench: Bench) -> None:
    result = bench.validate(HONEST, checks=STATIC)
    assert failing(result) == {}, result
    assert result.unmeasured == {}
    expected = {
        "format.files": 2,
        "format.errors": 0,
        "security.files": 2,
        "security.low": 0,
        "secrets.files": 3,
        "secrets.found": 0,
        "secrets.possible": 0,
        "complexity.files": 2,
        "complexity.functions": 3,
        "complexity.max": 2,
        "duplication.files": 1,
        "duplication.percent": 0,
    }
    assert result.metrics | expected == result.metrics
    wanted = "0 files to format, 0 high security findings, 0 secrets, complexity up to 2, 0.0 % repeated"
    assert result.summary == wanted


COUNTED = {
    # --- format
    "unformatted": (src(UGLY), {"format.errors": 1, "format.suppressed": 0}),
    "fmt: off": (src("# fmt: off\n" + UGLY), {"format.errors": 1, "format.suppressed": 1}),
    "fmt: skip": (src(UGLY.strip() + "  # fmt: skip\n"), {"format.errors": 1, "format.suppressed": 1}),
    "yapf: disable": (src("# yapf: disable\n" + UGLY), {"format.errors": 1, "format.suppressed": 1}),
    "excluded by ruff.toml": (src(UGLY, {"ruff.toml": "exclude = ['src']\n[format]\nexclude = ['*']\n"}), {"format.errors": 1}),
    "excluded in pyproject.toml": (src(UGLY, {"pyproject.toml": "[tool.ruff]\nforce-exclude = true\nextend-exclude = ['src']\n"}), {"format.errors": 1}),
    "ignored by git": (src(UGLY, {".gitignore": "more.py\n"}), {"format.errors": 1}),
    "excluded by black": (src(UGLY, {"pyproject.toml": "[tool.black]\nforce-exclude = 'more'\nexclude = 'src'\n"}), {"format.errors": 1}),
    "fmt: off under black": (src("# fmt: off\n" + UGLY, {"pyproject.toml": "[tool.black]\n"}), {"format.errors": 1, "format.suppressed": 1}),
    "its own quotes": (src("x = 'a'\n", {"ruff.toml": "format.quote-style = 'single'\n"}), {"format.errors": 0}),
    "its own length": (src("x = [" + ", ".join(["111"] * 20) + "]\n", {"pyproject.toml": "[tool.ruff]\nline-length = 120\n"}), {"format.errors": 0}),
    "black's own quotes": (src("x = 'a'\n", {"pyproject.toml": "[tool.black]\nskip-string-normalization = true\n"}), {"format.errors": 0}),
    "a file that does not parse": (src("def f(:\n"), {"format.errors": 1}),
    "a module named like the tool": (src(UGLY, {"ruff.py": "raise SystemExit\n", "black.py": "raise SystemExit\n"}), {"format.errors": 1}),
    # --- security
    "a shell": (src(SHELL), {"security.high": 1, "security.suppressed": 0}),
    "nosec": (src(SHELL.replace("True)", "True)  # nosec")), {"security.high": 1, "security.suppressed": 1}),
    "nosec by number": (src(SHELL.replace("True)", "True)  # nosec B602")), {"security.high": 1, "security.suppressed": 1}),
    "left out by .bandit": (src(SHELL, {".bandit": "[bandit]\nexclude = /src\nskips = B602\n"}), {"security.high": 1}),
    "left out in pyproject.toml": (src(SHELL, {"pyproject.toml": "[tool.bandit]\nexclude_dirs = ['src']\nskips = ['B602']\n"}), {"security.high": 1}),
    "in a folder that bandit leaves out": (HONEST | {".tox/more.py": SHELL, ".git/hook.py": SHELL}, {"security.high": 2}),
    "a module named bandit": (src(SHELL, {"bandit.py": "raise SystemExit\n", "bandit/__init__.py": ""}), {"security.high": 1}),
    "assert in tests": (HONEST, {"security.low": 0}),
    "assert in browser tests": (HONEST | {"e2e/test_page.py": "def test_page() -> None:\n    assert 1\n"}, {"security.low": 0}),
    "assert in the sources": (src("def f(n: int) -> None:\n    assert n\n"), {"security.low": 1}),
    "a shell in tests": (HONEST | {"tests/more.py": SHELL}, {"security.high": 1}),
    # --- secrets
    "a key": (src(f"KEY = '{AWS}'\n"), {"secrets.found": 1, "secrets.suppressed": 0}),
    "two keys, one of them twice": (src(f"KEYS = '{AWS} {GITHUB} {AWS}'\n"), {"secrets.found": 2}),
    "pragma: allowlist secret": (src(f"KEY = '{AWS}'  # pragma: allowlist secret\n"), {"secrets.found": 1, "secrets.suppressed": 1}),
    "pragma: allowlist nextline secret": (src(f"# pragma: allowlist nextline secret\nKEY = '{AWS}'\n"), {"secrets.found": 1, "secrets.suppressed": 1}),
    "a baseline": (src(f"KEY = '{AWS}'\n", {".secrets.baseline": '{"results": {}, "filters_used": []}\n'}), {"secrets.found": 1}),
    "named like a lock file": (HONEST | {"poetry.lock": f"x = '{AWS}'\n"}, {"secrets.found": 1}),
    "named like a picture": (HONEST | {"docs/logo.png": f"x = '{AWS}'\n"}, {"secrets.found": 1}),
    "ignored by git, secret": (HONEST | {".env": f"TOKEN={GITHUB}\n", ".gitignore": ".env\n"}, {"secrets.found": 1}),
    "after a binary start": (HONEST | {"data.bin": "\0\0\0" + "x" * 9000 + f"\n{AWS}\n"}, {"secrets.found": 1}),
    "in UTF-16": (HONEST | {"data.txt": "\0".join(f"key {AWS} ")}, {"secrets.found": 1}),
    "on a line of its own size": (HONEST | {"bundle.js": "var a=1;" * 100_000 + f"'{AWS}'" + "var a=1;" * 1000}, {"secrets.found": 1}),
    "a random password": (src(f'password = "{RANDOM}"\n'), {"secrets.found": 1}),
    "a plain password": (src('password = "hunter2-test"\n'), {"secrets.found": 0, "secrets.possible": 1}),
    "a template": (HONEST | {"ci.yaml": "password: ${{ secrets.PASSWORD }}\n"}, {"secrets.found": 0, "secrets.possible": 0}),
    "an example of the documentation": (src("KEY = 'AKIA" + "IOSFODNN7EXAMPLE'\n"), {"secrets.found": 0}),
    "hashes of packages": (HONEST | {"requirements.txt": "a==1 \\\n    --hash=sha256:" + "0a1b2c3d" * 8 + "\n"}, {"secrets.found": 0, "secrets.possible": 0}),
    # --- complexity
    "a tangled function": (src(TANGLED), {"complexity.max": 13}),
    "noqa: C901": (src(TANGLED.replace("int:\n", "int:  # noqa: C901\n", 1)), {"complexity.max": 13}),
    "noqa for the file": (src("# ruff: noqa\n# flake8: noqa\n" + TANGLED), {"complexity.max": 13}),
    "a disabled range": (src("# ruff: disable[C901]\n" + TANGLED), {"complexity.max": 13}),
    "a generous limit": (src(TANGLED, {"ruff.toml": "lint.mccabe.max-complexity = 99\nlint.per-file-ignores = {'*' = ['C901']}\n"}), {"complexity.max": 13}),
    "in a test": (HONEST | {"tests/more.py": TANGLED}, {"complexity.max": 13}),
    "inside another function": (src("def outer() -> None:\n" + "".join(f"    {line}\n" for line in TANGLED.splitlines())), {"complexity.max": 14}),
    # --- duplication
    "a copy in one file": (src(COPIED), {"duplication.lines": 26, "duplication.percent": 61.54}),
    "a copy in two files": (src("# a copy\n" + CODE), {"duplication.percent": 100}),
    "a copy with comments between": (src(COPIED.replace("weigh(3, total)\n", "weigh(3, total)\n    # pylint: disable=duplicate-code\n\n", 1)), {"duplication.percent": 61.54}),
    "generated, it says": (src("# GENERATED CODE #lizard forgive global\n" + COPIED), {"duplication.percent": 61.54}),
    "a copy in the tests": (HONEST | {"tests/more.py": COPIED}, {"duplication.files": 1, "duplication.percent": 0}),
    "code that calls itself tests": (HONEST | {".taxiway.yaml": MANIFEST + "test: {paths: [src, tests]}\n", "src/tiny/more.py": COPIED}, {"duplication.percent": 61.54}),
    "a table of equal lines": (src("x = [\n" + "    1,\n" * 9 + "]\n"), {"duplication.percent": 0}),
}  # fmt: skip


@pytest.mark.parametrize(("files", "expected"), COUNTED.values(), ids=COUNTED)
def test_what_is_counted(bench: Bench, files: dict[str, str], expected: dict[str, float]) -> None:
    result = bench.validate(files, checks=list({name.split(".")[0] for name in expected}))
    assert result.metrics | expected == result.metrics, result


UNMEASURED = {
    "complexity of what does not parse": (src("def f(:\n"), "complexity.max", "more.py cannot be parsed"),
    "complexity without a function": ({".taxiway.yaml": MANIFEST, "src/a.py": "x = 1\n"}, "complexity.max", "there is no function"),
    "security of what does not parse": (src("def f(:\n"), "security.high", "could not read src/tiny/more.py"),
    "security of deeply nested code": (src(DEEP), "security.high", "could not read src/tiny/more.py"),
    "format of yapf's": (src(UGLY, {".style.yapf": ""}), "format.errors", "formatted by yapf"),
    "format by settings that are none": (src(UGLY, {"ruff.toml": "format.quote-style = 'none'\n"}), "format.errors", "quote-style"),
    "format by a file that is no TOML": (src(UGLY, {"ruff.toml": "[" * 5000}), "format.errors", "ruff.toml cannot be read"),
    "a file with a line break in its name": (HONEST | {"src/a\nb.py": UGLY}, "format.errors", "line break in its name"),
    "no code at all": ({".taxiway.yaml": MANIFEST}, "duplication.percent", "there is no Python file"),
}


@pytest.mark.parametrize(("files", "metric", "why"), UNMEASURED.values(), ids=UNMEASURED)
def test_what_is_not_measured(bench: Bench, files: dict[str, str], metric: str, why: str) -> None:
    result = bench.validate(files, checks=[metric.split(".", maxsplit=1)[0]])
    assert metric not in result.metrics
    assert why in result.unmeasured[metric]


def test_a_missing_tool_is_not_zero(bench: Bench, installed: Installed, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "bin").mkdir(parents=True)
    result = bench.with_environments(replace(installed, pinned=Environment(empty, "", cached=True))).validate(HONEST, checks=STATIC[:4])
    assert result.metrics == {}
    assert {"format.errors", "security.high", "secrets.found", "complexity.max"} <= set(result.unmeasured)


def test_a_secret_is_shown_nowhere(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    files = src(f'KEY = "{AWS}"\npassword = "{RANDOM}"\nconnect(password="hunter2-test")\n', {".env": f"TOKEN={GITHUB}\n"})
    with caplog.at_level(logging.DEBUG):
        result = bench.validate(files, checks=STATIC)
    assert result.metrics["secrets.found"] == 3
    assert result.metrics["security.low"] >= 1
    reports = [p.read_text() for p in (bench.scratch / "reports").rglob("*") if p.is_file()]
    shown = "\n".join([*reports, caplog.text, result.model_dump_json()])
    assert not [s for s in (AWS, RANDOM, GITHUB, "hunter2-test") if s in shown]
    found = json.loads((bench.scratch / "reports/secrets.json").read_text())
    assert ("src/tiny/more.py", 1, "AWS Access Key") in {(f["path"].removeprefix("./"), f["line"], f["kind"]) for f in found}


def test_hostile_files(bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = write(tmp_path / "outside", {"secret.txt": AWS, "ugly.py": UGLY})
    checkout = write(tmp_path / "hostile", HONEST)
    reports, start = tmp_path / "hostile-reports", tmp_path / "hostile-start"
    for place in (reports, start):
        place.mkdir()
    (checkout / "link.txt").symlink_to(outside / "secret.txt")
    (checkout / "folder").symlink_to(outside)
    (checkout / "dangling").symlink_to("nowhere")
    (checkout / "itself").symlink_to("itself")
    (checkout / "src/tiny/latin.py").write_bytes(b'# -*- coding: latin-1 -*-\nNAME = "\xe9"\n')
    (checkout / os.fsdecode(b"n\xffme\n.txt")).write_bytes(b"\xff\xfe\x00" + AWS.encode())
    (checkout / "-q").write_text(f"{GITHUB}\n")
    os.mkfifo(checkout / "pipe.py.txt")
    with caplog.at_level(logging.INFO):
        result = bench.run(checkout, reports, start, checks=["secrets", "security", "duplication"])
    assert result.metrics["secrets.found"] == 2, result
    assert result.metrics["security.files"] == 3, result
    assert r"n\udcffme" in caplog.text
    assert (caplog.text + result.model_dump_json()).isascii()
    (checkout / "out.py").symlink_to(outside / "ugly.py")
    again = tmp_path / "again"
    again.mkdir()
    result = bench.run(checkout, again, start, checks=["format", "security", "complexity", "duplication"])
    assert result.metrics == {}
    assert {"out.py is a link out of the project, or no plain file"} == set(result.unmeasured.values())
