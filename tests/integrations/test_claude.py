"""ClaudeModel: the real SDK against a local server that speaks the Messages API."""

from __future__ import annotations

import time

import anthropic
import pytest

from taxiway.errors import ModelCutOff, ModelError, ModelUnavailable, OperatorError
from taxiway.integrations.claude import ClaudeModel, ClaudeModels, client_from
from taxiway.ports import Usage
from taxiway.stop import Stop
from taxiway.testing import Failure, Hang, ScriptedClaude, say, use

ASK = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hello?"}]}


CLIENTS = []


@pytest.fixture(autouse=True)
def clients_are_closed():
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def client_of(environ):
    CLIENTS.append(client_from(environ))
    return CLIENTS[-1]


def model(claude, name="claude-x", **settings):
    client = client_of({"ANTHROPIC_API_KEY": "sk-test-canary", "ANTHROPIC_BASE_URL": claude.url})
    return ClaudeModel(client, name, **{"retries": 0, **settings})


def test_an_answer_with_tools_and_usage():
    with ScriptedClaude([say("I look.") + use("read", path="a.py", lines=[1, 2])]) as claude:
        reply = model(claude).create(ASK, timeout_s=30)
    assert (reply.text, reply.stop_reason, reply.model) == ("I look.", "tool_use", "claude-x")
    assert reply.content[1]["input"] == {"path": "a.py", "lines": [1, 2]}
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert (claude.error, claude.left) == ("", 0)


def test_what_goes_out():
    with ScriptedClaude([say("x")]) as claude:
        model(claude, effort="low").create({**ASK, "output_config": {"format": {"type": "json_schema", "schema": {}}}}, timeout_s=30)
    (sent,) = claude.requests
    assert sent["model"] == "claude-x"
    assert sent["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": {}}}
    assert {"temperature", "top_p", "top_k", "tool_choice"}.isdisjoint(sent), "current models refuse them"


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Failure(400, "messages: wrong"), ModelError, "messages: wrong"),
        (Failure(400, "prompt is too long: 3 > 2"), ModelCutOff, "too long"),
        (Failure(400, "Your credit balance is too low"), OperatorError, "credit balance"),
        (Failure(401, "invalid x-api-key"), OperatorError, "credentials"),
        (Failure(402, "billing"), OperatorError, "billing"),
        (Failure(403, "no"), OperatorError, "credentials"),
        (Failure(404, "model: claude-x"), OperatorError, "does not know claude-x"),
        (Failure(409, "conflict"), ModelUnavailable, "conflict"),
        (Failure(413, "too large"), ModelCutOff, "too large"),
        (Failure(429, "slow down"), ModelUnavailable, "slow down"),
        (Failure(500, "oops"), ModelUnavailable, "oops"),
        (Failure(503, "gone"), ModelUnavailable, "gone"),
        (Failure(529, "overloaded"), ModelUnavailable, "overloaded"),
        (Hang(0), ModelUnavailable, "not available"),
    ],
    ids=str,
)
def test_every_failure_says_who_must_act(answer, error, says):
    with ScriptedClaude([answer]) as claude, pytest.raises(error, match=says) as caught:
        model(claude).create(ASK, timeout_s=30)
    assert type(caught.value) is error
    assert caught.value.hint
    assert "canary" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time():
    with ScriptedClaude([Hang(60)]) as claude, pytest.raises(ModelUnavailable):
        model(claude).create(ASK, timeout_s=0.5)


def test_nobody_listens():
    client = client_of({"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
    with pytest.raises(ModelUnavailable):
        ClaudeModel(client, "m", retries=0).create(ASK, timeout_s=30)


def test_what_may_pass_is_tried_again_as_the_server_says():
    with ScriptedClaude([Failure(429, retry_after_s=0.01), Failure(529, retry_after_s=0.01), say("at last")]) as claude:
        assert model(claude, retries=2).create(ASK, timeout_s=30).text == "at last"
    assert len(claude.requests) == 3


def test_all_tries_share_the_time_of_the_call():
    began = time.monotonic()
    with ScriptedClaude([Hang(1)] * 9) as claude, pytest.raises(ModelUnavailable):
        model(claude, retries=4).create(ASK, timeout_s=1.5)
    assert time.monotonic() - began < 7  # each with all of it would take 7.5 s


def test_a_wait_that_does_not_fit_is_not_begun():
    began = time.monotonic()
    with (
        ScriptedClaude([Failure(429, "slow down", retry_after_s=30), say("never")]) as claude,
        pytest.raises(ModelUnavailable, match="slow"),
    ):
        model(claude, retries=4).create(ASK, timeout_s=20)
    assert (time.monotonic() - began < 20, len(claude.requests)) == (True, 1)


class Odd(ScriptedClaude):
    """Answers with another message than the API's: `change` says which."""

    change = staticmethod(lambda message: message)

    def message(self, request, turn):
        return self.change(super().message(request, turn))


CALL = {"type": "tool_use", "id": "a", "name": "list", "input": {}}
UNREADABLE = {
    "no usage": {"usage": None},
    "no tokens": {"usage": {}},
    "tokens null": {"usage": {"input_tokens": None, "output_tokens": 1}},
    "tokens below zero": {"usage": {"input_tokens": -9, "output_tokens": 1}},
    "tokens without end": {"usage": {"input_tokens": 10**30, "output_tokens": 1}},
    "tokens as text": {"usage": {"input_tokens": "7", "output_tokens": 1}},
    "content null": {"content": None},
    "content a text": {"content": "hello"},
    "a block null": {"content": [None]},
    "a block a text": {"content": ["hello"]},
    "a call without id": {"content": [{**CALL, "id": None}]},
    "a call without name": {"content": [{**CALL, "name": None}]},
}


@pytest.mark.parametrize(
    "change", [lambda _: [1], lambda _: "hello", lambda _: None, *UNREADABLE.values()], ids=["list", "text", "null", *UNREADABLE]
)
def test_an_answer_that_is_none(change):
    odd = Odd([say("x")])
    odd.change = change if callable(change) else lambda message: {**message, **change}
    with odd as claude, pytest.raises(ModelUnavailable, match="cannot be read") as error:
        model(claude).create(ASK, timeout_s=30)
    assert "Messages API" in error.value.hint


def test_what_may_be_left_out():
    odd = Odd([say("x")])
    odd.change = lambda message: {**message, "model": None, "stop_reason": None, "content": [{**CALL, "input": None}]}
    with odd as claude:
        reply = model(claude).create(ASK, timeout_s=30)
    assert (reply.content, reply.model, reply.stop_reason) == ((CALL,), "claude-x", "")


def test_the_client_is_closed_with_the_models():
    clients = []
    with ScriptedClaude([say("one"), say("two")]) as claude:
        models = ClaudeModels(
            lambda: clients.append(client_from({"ANTHROPIC_BASE_URL": claude.url})) or clients[-1], missing="", environ={}
        )
        models.close()
        assert clients == []
        for text in ("one", "two"):
            assert models.open("m", fallback="", effort="", stop=Stop()).create(ASK, timeout_s=30).text == text
            models.close()
    assert [client.is_closed() for client in clients] == [True, True]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_cannot_pass_is_not_tried_again(status):
    with ScriptedClaude([Failure(status), say("never")]) as claude, pytest.raises((ModelError, OperatorError)):
        model(claude, retries=3).create(ASK, timeout_s=30)
    assert len(claude.requests) == 1


def test_another_model_answers_where_the_first_stays_unavailable():
    def script(request):
        return Failure(529) if request["model"] == "big" else say("from the small one")

    with ScriptedClaude(script) as claude:
        reply = model(claude, "big", fallback="small").create(ASK, timeout_s=30)
    assert (reply.text, reply.model) == ("from the small one", "small")


def test_another_model_is_not_asked_for_what_it_would_refuse_too():
    with ScriptedClaude([Failure(400, "wrong")]) as claude, pytest.raises(ModelError):
        model(claude, fallback="small").create(ASK, timeout_s=30)
    assert [r["model"] for r in claude.requests] == ["claude-x"]


def test_without_key_and_url_there_is_no_client():
    assert client_from({}) is None
    assert client_from({"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": ""}) is None


def test_usage_adds_up():
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert (Usage(1, 2, 3, 4).prompt_tokens, Usage(1, 2, 3, 4).tokens) == (8, 10)


# --- the scripted server itself -------------------------------------------------------------------


def test_the_cache_is_seen_in_the_usage():
    mark = {"cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "x" * 4000, **mark}]
    first = {**ASK, "system": system}
    more = [
        *ASK["messages"],
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "And?", **mark}]},
    ]
    with ScriptedClaude(lambda _: say("ok")) as claude:
        one, two, three = (
            model(claude).create(r, timeout_s=30).usage for r in (first, {**first, "messages": more}, {**first, "messages": more})
        )
    assert (one.cache_read_tokens, one.cache_write_tokens > 1000, one.input_tokens < 50) == (0, True, True)
    assert two.cache_read_tokens == one.cache_write_tokens
    assert two.cache_write_tokens > 0
    assert (three.cache_read_tokens, three.cache_write_tokens, three.input_tokens) == (two.cache_read_tokens + two.cache_write_tokens, 0, 0)


def test_it_streams():
    with ScriptedClaude([say("Hello ") + use("read", path="a.py")]) as claude:
        client = anthropic.Anthropic(api_key="k", base_url=claude.url)
        with client, client.messages.stream(**ASK, model="m") as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
    assert text == "Hello "
    assert message.content[1].input == {"path": "a.py"}
    assert message.stop_reason == "tool_use"


def test_a_script_that_is_too_short_says_so():
    with ScriptedClaude([say("one")]) as claude:
        asked = model(claude)
        asked.create(ASK, timeout_s=30)
        with pytest.raises(ModelUnavailable, match="request 2 has no answer"):
            asked.create(ASK, timeout_s=30)
    assert "the script has 1" in claude.error
