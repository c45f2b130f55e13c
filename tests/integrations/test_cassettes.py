from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from taxiway.errors import ModelUnavailable, OperatorError
from taxiway.integrations.cassettes import RecordingModel, ReplayedModel
from taxiway.ports import Reply, Usage

FIRST = {"max_tokens": 10, "system": "You work.", "messages": [{"role": "user", "content": "Count the files of the folder src."}]}
SECOND = {**FIRST, "messages": [*FIRST["messages"], {"role": "assistant", "content": "7"}, {"role": "user", "content": "Sure?"}]}


class Echo:
    """A model at the edge of the test: it answers with what it was asked."""

    name = "m"

    def create(self, request, *, timeout_s):
        if request.get("fail"):
            raise ModelUnavailable("gone")
        return Reply(({"type": "text", "text": str(request["messages"][-1])},), "end_turn", "m-1", Usage(1, 2, 3, 4))


@pytest.fixture
def recorded(tmp_path):
    model = RecordingModel(Echo(), tmp_path / "deep" / "tape")
    return tmp_path / "deep" / "tape", [model.create(r, timeout_s=1) for r in (FIRST, SECOND)]


def test_a_replay_gives_the_same_answers_in_any_order(recorded):
    folder, replies = recorded
    model = ReplayedModel("m", folder)
    wanted = [replace(reply, replayed=True) for reply in replies]
    assert [model.create(r, timeout_s=1) for r in (SECOND, FIRST, SECOND)] == [wanted[1], wanted[0], wanted[1]]


class Leaks:
    """Writes a key of its own making into a file."""

    name = "m"
    key = "ghp_" + "a1B2" * 9 + "0123456789abcdef"

    def create(self, request, *, timeout_s):
        used = {"type": "tool_use", "id": "1", "name": "write", "input": {"path": "app.py", "content": f"KEY = '{self.key}'\n"}}
        return Reply((used,), "tool_use", "m-1", Usage(1, 2, 3, 4))


def test_a_credential_that_the_model_says_is_masked_and_replays(tmp_path):
    def talk(model):
        """The second request repeats the answer to the first, as the API wants it."""
        first = model.create(FIRST, timeout_s=1)
        told = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "written"}]}
        second = {**FIRST, "messages": [*FIRST["messages"], {"role": "assistant", "content": list(first.content)}, told]}
        return [first, model.create(second, timeout_s=1)]

    assert Leaks.key in str(talk(RecordingModel(Leaks(), tmp_path)))
    kept = [path.read_text() for path in tmp_path.iterdir()]
    assert len(kept) == 2
    assert "a1B2" not in "".join(kept)
    again = talk(ReplayedModel("m", tmp_path))
    assert [reply.content[0]["input"]["content"] for reply in again] == ["KEY = '[secret]'\n"] * 2


CHANGING = {
    "a duration": ("3 passed in 0.12s", "3 passed in 11.04s"),
    "a folder": ("/tmp/a/checkouts/run-1-x7/app.py:3: no", "/home/b/.taxiway/checkouts/run-2-k9/app.py:3: no"),
    "a moment": ("began 2026-03-01T12:00:01.5+00:00, ended 12:00:02", "began 2027-01-30 01:02:03, ended 23:59:59"),
    "an address": ("<App object at 0x7f3a5c1d2e90>", "<App object at 0x55d0aa10ffee>"),
    "a commit": ("gates do not pass on 0123456789ab", "gates do not pass on fedcba987654"),
    "a port": ("GET http://127.0.0.1:43121/healthz", "GET http://127.0.0.1:8000/healthz"),
}


def asking(text):
    return {**FIRST, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}


@pytest.mark.parametrize(("then", "now"), CHANGING.values(), ids=CHANGING)
def test_what_is_different_in_every_run_is_no_difference(tmp_path, then, now):
    reply = RecordingModel(Echo(), tmp_path).create(asking(then), timeout_s=1)
    assert ReplayedModel("m", tmp_path).create(asking(now), timeout_s=1).content == reply.content


SAID = {
    "a value": ("expected 3, got 1", "expected 3, got 2"),
    "a line": ("app.py:3: no", "app.py:4: no"),
    "a file": ("see src/a/app.py", "see src/b/app.py"),
    "a count": ("12 passed in 0.1s", "13 passed in 0.1s"),
    "a short word of hex": ("facade", "decade"),
}


@pytest.mark.parametrize(("then", "now"), SAID.values(), ids=SAID)
def test_what_is_said_is_one(tmp_path, then, now):
    RecordingModel(Echo(), tmp_path).create(asking(then), timeout_s=1)
    with pytest.raises(OperatorError, match="no recorded answer"):
        ReplayedModel("m", tmp_path).create(asking(now), timeout_s=1)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({**FIRST, "system": "You rest."}, r'system was "You work\." and is "You rest\."'),
        ({**FIRST, "max_tokens": 11}, "max_tokens was 10 and is 11"),
        (
            {**FIRST, "messages": [{"role": "user", "content": "Count the files of the folder tests."}]},
            r"messages\[0\]\.content was \.\.\..*folder src.* and is \.\.\..*folder tests",
        ),
        (
            {**SECOND, "messages": [*SECOND["messages"][:-1], {"role": "user", "content": "Really?"}]},
            r'messages\[2\]\.content was "Sure\?" and is "Really\?"',
        ),
        ({**SECOND, "messages": [*SECOND["messages"], {"role": "user", "content": "More"}]}, "goes on where the recorded"),
    ],
)
def test_a_conversation_that_changed_says_where(recorded, request_, says):
    with pytest.raises(OperatorError, match=says):
        ReplayedModel("m", recorded[0]).create(request_, timeout_s=1)


def test_another_model_is_another_conversation(recorded):
    with pytest.raises(OperatorError, match="m was asked then, n now"):
        ReplayedModel("n", recorded[0]).create(FIRST, timeout_s=1)


def test_nothing_recorded(tmp_path):
    with pytest.raises(OperatorError, match="nothing is recorded there"):
        ReplayedModel("m", tmp_path / "none").create(FIRST, timeout_s=1)


def test_two_who_ask_the_same_at_once_do_not_disturb_each_other(tmp_path):
    model = RecordingModel(Echo(), tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: model.create(FIRST, timeout_s=1), range(400)))
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


@pytest.mark.parametrize("missing", ["asked", "request", "reply"])
def test_half_a_cassette_is_none(recorded, missing):
    folder, _ = recorded
    for path in folder.iterdir():
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != missing}))
    with pytest.raises(OperatorError, match="is no recorded answer"):
        ReplayedModel("m", folder).create(FIRST, timeout_s=1)


@pytest.mark.parametrize("reply", [None, {}, {"content": [], "stop_reason": "", "model": "m", "usage": {"tokens": 1}}])
def test_a_cassette_with_half_an_answer_is_none(recorded, reply):
    folder, _ = recorded
    for path in folder.iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "reply": reply}))
    with pytest.raises(OperatorError, match="is no recorded answer"):
        ReplayedModel("m", folder).create(FIRST, timeout_s=1)


def test_failures_are_not_recorded(tmp_path):
    with pytest.raises(ModelUnavailable):
        RecordingModel(Echo(), tmp_path).create({**FIRST, "fail": True}, timeout_s=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 9}', '{"format": 1'])
def test_a_file_that_is_no_cassette(recorded, content):
    for path in recorded[0].glob("*.json"):
        path.write_text(content)
    with pytest.raises(OperatorError):
        ReplayedModel("m", recorded[0]).create(FIRST, timeout_s=1)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be written"):
        RecordingModel(Echo(), tmp_path / "file").create(FIRST, timeout_s=1)
