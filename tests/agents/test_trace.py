from __future__ import annotations

import base64
import html
import json
import time
from functools import partial
from urllib.parse import quote, quote_plus

import pytest

from taxiway.agents.masking import MASKED, Mask
from taxiway.agents.trace import FileTrace, as_page

KEY = "-----BEGIN OPENSSH PRIVATE " + "KEY-----\nabc\ndef\n-----END OPENSSH PRIVATE " + "KEY-----"
REPLY = {
    "kind": "reply", "at": "now", "step": 1, "model": "m", "stop_reason": "tool_use",
    "usage": {"input_tokens": 5, "output_tokens": 7, "cache_read_tokens": 11, "cache_write_tokens": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-" + "api03-" + "x" * 40,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a" * 40,
        "glpat-" + "a" * 20,
        "xoxb-" + "1" * 12,
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20,
        KEY,
        "hunter-of-two",
        "first line\nsecond line",
    ],
)
def test_secrets_are_masked(secret):
    mask = Mask(["hunter-of-two", "first line\nsecond line"])
    assert mask.text(f"before {secret} after") == f"before {MASKED} after"
    assert secret not in json.dumps(mask.data({"a": [{"b": f"x{secret}"}], secret: 1}))


def test_a_line_of_a_secret_alone_is_masked():
    assert Mask(["first line\nsecond line"]).text("only second line here") == f"only {MASKED} here"


ODD = 'p@ss "wörd"/+<&>?'


@pytest.mark.parametrize("before", ["", "g", "gi", "git:", "x-token:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", ["hunter-of-two", ODD])
def test_a_login_in_base64_is_masked(before, encode, secret):
    for after in ("", "@", "@host"):
        told = Mask([secret]).text(f"Authorization: Basic {encode(f'{before}{secret}{after}'.encode()).decode()}")
        assert MASKED in told
        rest = told.removeprefix("Authorization: Basic ").replace(MASKED, "").rstrip("=")
        assert len(rest) <= (len(before) + len(after)) * 4 / 3 + 4


@pytest.mark.parametrize(
    "write",
    [quote, quote_plus, partial(quote, safe=""), lambda s: quote(s).replace("%C3%B6", "%c3%b6").lower(), json.dumps, html.escape, repr],
)
def test_a_secret_is_masked_as_others_write_it(write):
    written = write(ODD)
    assert MASKED in Mask([ODD]).text(f"before {written} after")


def test_a_private_key_whose_end_is_cut_off_is_masked():
    begin, line = "-----BEGIN RSA PRIVATE " + "KEY-----", "MIIEpAIBAAKCAQEA" * 4
    numbered = f"    1  {begin}\n    2  {line}\n    3  {line}\n... cut: 99 more characters"
    assert Mask().text(numbered) == f"    1  {MASKED}\n... cut: 99 more characters"
    code = f'if text.startswith("{begin}"):\n    return "a private key that somebody left here"'
    assert Mask().text(code) == code


def test_text_that_begins_many_keys_is_masked_at_once():
    began = time.monotonic()
    Mask().text(("-----BEGIN PRIVATE " + "KEY-----\n") * 2000)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["commit 3972149fd53a0646025896d282985a5cb380a8aa", "sk-short", "a plain line", "task-sk-12", "hi"])
def test_other_text_stays(text):
    assert Mask(["hi", "", "  "]).text(text) == text


def test_it_is_written_as_it_happens(tmp_path):
    trace = FileTrace(tmp_path, Mask(["hunter-of-two"]))
    trace.note("request", {"request": "my password is hunter-of-two"})
    (line,) = (tmp_path / "trace.jsonl").read_text().splitlines()
    assert json.loads(line)["request"] == f"my password is {MASKED}"
    with pytest.raises(RuntimeError), trace:
        raise RuntimeError("hunter-of-two broke")
    assert "hunter" not in (tmp_path / "trace.jsonl").read_text() + (tmp_path / "trace.html").read_text()
    assert f"{MASKED} broke" in (tmp_path / "trace.html").read_text()


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "{% raw %}"])
def test_a_page_runs_nothing(hostile):
    entries = [
        {"kind": "request", "at": "now", "system": hostile, "project": hostile, "request": hostile},
        {**REPLY, "content": [{"type": "text", "text": hostile}, {"type": "tool_use", "name": hostile, "input": {hostile: hostile}}]},
        {"kind": "tool", "at": "now", "name": hostile, "told": hostile, "failed": True},
        {"kind": hostile, "at": hostile},
    ]
    page = as_page(entries)
    body = page.partition("</style>")[2]
    assert "<script" not in body
    assert "<img" not in body
    assert "49" not in body


def test_a_page_sums_up():
    page = as_page([{**REPLY, "content": []}, {**REPLY, "content": []}])
    assert "2 calls of m;\n36 tokens read (22 of them from the cache),\n14 written" in page


def test_a_page_says_whose_it_is_and_leads_back(tmp_path):
    with FileTrace(tmp_path, Mask(), about="pipeline shop, run <b>1</b>, stage check, attempt 2"):
        pass
    page = (tmp_path / "trace.html").read_text()
    assert "<title>Conversation: pipeline shop, run &lt;b&gt;1&lt;/b&gt;, stage check, attempt 2</title>" in page
    assert '<p>pipeline shop, run &lt;b&gt;1&lt;/b&gt;, stage check, attempt 2 \N{MIDDLE DOT} <a href="./">all reports' in page
    assert "1 call of m;" in as_page([{**REPLY, "content": []}])


def test_text_that_is_no_unicode(tmp_path):
    with FileTrace(tmp_path, Mask()) as trace:
        trace.note("tool", {"told": "\ud800"})
    assert (tmp_path / "trace.html").exists()
