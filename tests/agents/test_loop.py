"""The loop with the real SDK against a scripted model."""

from __future__ import annotations

import pytest
from pydantic import Field

from taxiway.agents.loop import HAND_IN, Task, converse
from taxiway.agents.tools import Tools
from taxiway.agents.trace import as_page
from taxiway.errors import BudgetExceeded, Cancelled, ModelCutOff, ModelInvalid, ModelRefused, ModelUnavailable, ModelUnfinished
from taxiway.integrations.claude import ClaudeModel, client_from
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Usage
from taxiway.records import Model as Record
from taxiway.stop import Stop
from taxiway.testing import Failure, ScriptedClaude, Turn, say, use


class Done(Record):
    """What the model hands in."""

    summary: str = Field(min_length=1)


class Counted:
    """A purse with as many calls as it is given."""

    def __init__(self, calls=100):
        self.calls, self.open, self.paid = calls, [], []

    def reserve(self, model, *, prompt_tokens, output_tokens):
        if self.calls <= len(self.paid):
            raise BudgetExceeded("the run's budget is spent")
        self.open.append((model, prompt_tokens, output_tokens))
        return str(len(self.open))

    def settle(self, reservation, reply, *, failed=False):
        self.paid.append(reply.usage if reply else None)


class Kept(list):
    def note(self, kind, data):
        self.append((kind, data))


@pytest.fixture
def work(tmp_path):
    (tmp_path / "a.py").write_text("one = 1\n")

    def run(script, *, purse=None, stop=None, **task):
        stop = stop or Stop()
        trace, purse = Kept(), purse or Counted()
        with ScriptedClaude(script) as claude, client_from({"ANTHROPIC_BASE_URL": claude.url}) as client:
            model = ClaudeModel(client, "m", retries=0)
            tools = Tools(tmp_path, ProcessSandbox(trusted=True), stop)
            try:
                made = converse(
                    Task(system="You work.", project="a.py", request="Do it.", answer=Done, **task),
                    model=model,
                    tools=tools,
                    purse=purse,
                    trace=trace,
                    stop=stop,
                )
            finally:
                run.claude, run.trace, run.purse = claude, trace, purse
        return made

    return run


def test_it_works_until_it_hands_in(work, tmp_path):
    script = [
        say("I look.") + use("read", path="a.py"),
        use("write", path="b.py", content="b = 2\n") + use("read", path="gone.py"),
        use(HAND_IN, summary="Added b."),
    ]
    done = work(script)
    assert (done.answer.summary, done.calls) == ("Added b.", 3)
    assert (tmp_path / "b.py").read_text() == "b = 2\n"
    assert done.usage == sum(work.purse.paid, Usage())
    last = work.claude.requests[2]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    told = last[-1]["content"]
    assert told[0]["content"] == "wrote b.py, 1 lines"
    assert told[1]["is_error"] is True
    assert [kind for kind, _ in work.trace] == ["request", "reply", "tool", "reply", "tool", "tool", "reply"]


def test_the_cache_ends_after_what_stays_and_after_what_is_new(work):
    work([use("read", path="a.py"), use("read", path="a.py"), use("read", path="a.py"), use(HAND_IN, summary="x")])
    for request in work.claude.requests:
        blocks = [*request["system"], *(b for m in request["messages"] for b in m["content"])]
        assert sum("cache_control" in b for b in blocks) <= 4
        assert "cache_control" in request["messages"][-1]["content"][-1]
    assert work.purse.paid[0].cache_read_tokens == 0
    assert all(u.cache_read_tokens > 0 and u.input_tokens == 0 for u in work.purse.paid[1:])


def test_an_answer_of_the_wrong_form_goes_back(work):
    done = work([use(HAND_IN, summary=""), use(HAND_IN, sumary="x"), use(HAND_IN, summary="right")])
    assert (done.answer.summary, done.calls) == ("right", 3)


def test_handing_in_comes_alone(work, tmp_path):
    work([use("write", path="b.py", content="b") + use(HAND_IN, summary="early"), use(HAND_IN, summary="late")])
    assert (tmp_path / "b.py").exists()


def test_who_only_talks_is_reminded_once(work):
    assert work([say("Done!"), use(HAND_IN, summary="really")]).calls == 2
    with pytest.raises(ModelInvalid, match="twice"):
        work([say("Done!"), say("I said: done!")])


THINKS = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
NOTHING = {
    "nothing": Turn(()),
    "an empty text": say(""),
    "white space": say(" \n"),
    "thoughts alone": Turn((THINKS,)),
    "a pause": Turn((), "pause_turn"),
    "something new": Turn((), "zebra"),
}


@pytest.mark.parametrize("answer", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("first", [(), (use("list"),)], ids=["at once", "after a tool"])
def test_who_says_nothing_is_reminded(work, answer, first):
    """The API takes neither an empty message nor an empty text, and no message that ends with thoughts."""
    done = work([*first, answer, use(HAND_IN, summary="after all")])
    assert done.answer.summary == "after all"
    messages = work.claude.requests[-1]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"][: 1 + 2 * len(first)]
    assert "You ended without calling hand_in" in messages[-1]["content"][-1]["text"]
    assert sum(
        "cache_control" in b for r in work.claude.requests for b in r["system"] + [b for m in r["messages"] for b in m["content"]]
    ) <= 4 * len(work.claude.requests)


def test_thoughts_go_back_as_they_are_and_an_empty_text_beside_them_does_not(work):
    work([Turn((THINKS, *say("").content, *use("list").content)), use(HAND_IN, summary="x")])
    assert [b["type"] for b in work.claude.requests[1]["messages"][1]["content"]] == ["thinking", "tool_use"]


@pytest.mark.parametrize("given", ["text", ["a"], None, 3])
def test_arguments_of_any_form_are_answered(work, given, tmp_path):
    """And the page of the conversation is made of them."""
    calls = [Turn(({"type": "tool_use", "name": name, "input": given},)) for name in ("list", HAND_IN)]
    done = work([*calls, use(HAND_IN, summary="x")])
    assert done.calls == 3
    entries = [{"at": "", "kind": kind, **data} for kind, data in work.trace]
    assert "calls <b>list</b>" in as_page(entries)


def test_many_calls_at_once_are_not_told_more_than_a_model_can_read(work, tmp_path):
    (tmp_path / "long.txt").write_text("x" * 19_000)
    every = sum((use("read", path="long.txt") for _ in range(99)), use("list"))
    work([every, use(HAND_IN, summary="x")])
    told = work.claude.requests[1]["messages"][-1]["content"]
    assert len(told) == 100
    assert sum(len(block["content"]) for block in told) < 300_000
    assert "is_error" not in told[5]
    assert "ask again" in told[-1]["content"]


def test_time_is_looked_at_between_calls_too(work):
    with pytest.raises(BudgetExceeded, match="without an end"):
        work([sum((use("search", pattern="(a|a)*b") for _ in range(300)), use("list"))], seconds=1)
    assert len(work.trace) < 200


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (say("I will not.", stop_reason="refusal"), ModelRefused),
        (say("And then", stop_reason="max_tokens"), ModelCutOff),
        (say("And then", stop_reason="model_context_window_exceeded"), ModelCutOff),
        (Turn((), "refusal"), ModelRefused),
        (Failure(529), ModelUnavailable),
    ],
    ids=["refusal", "max_tokens", "context", "empty refusal", "unavailable"],
)
def test_no_usable_answer(work, answer, error):
    with pytest.raises(error):
        work([use("read", path="a.py"), answer])
    assert len(work.purse.open) == len(work.purse.paid) == 2, "what was set aside is settled, answered or not"


def test_limits_are_checked_before_the_call(work):
    with pytest.raises(ModelUnfinished, match="2 steps"):
        work([use("list"), use("list"), use("list")], steps=2)
    assert len(work.claude.requests) == 2
    with pytest.raises(BudgetExceeded, match="spent"):
        work([use("list"), use("list")], purse=Counted(1))
    assert len(work.claude.requests) == 1
    with pytest.raises(BudgetExceeded, match="0 s"):
        work([use("list")], seconds=0)
    assert work.claude.requests == []


def test_a_stopped_run_asks_nothing(work):
    stop = Stop()
    stop.cancel()
    with pytest.raises(Cancelled):
        work([use("list")], stop=stop)
    assert work.claude.requests == []
