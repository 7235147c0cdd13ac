"""A job's events as OpenAI's `chat.completion` and `chat.completion.chunk`: a pure translation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway import frame
from gateway.openai.api_errors import NOT_AGAIN, SERVER, ApiError, job_cancelled, job_failed
from tidegate_common.contract import answers
from tidegate_common.contract.answers import AiError, Answer
from tidegate_common.contract.jobs import Usage
from tidegate_common.contract.text import UNREADABLE, mended_json

DONE = b"data: [DONE]\n\n"
COMMENT = b": waiting\n\n"
"""For proxies that cut a connection on which nothing is said; OpenAI's clients pass it over."""

CANCELLED = "cancelled"


class ChunkHead(msgspec.Struct, frozen=True):
    """What each chunk of a completion, and the completion as a whole, begin with."""

    job_id: str
    created: int
    model: str

    def fields(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.job_id}", "object": kind, "created": self.created, "model": self.model}


class _Indexed(msgspec.Struct):
    """What counts of an event that is no text."""

    index: int | None = None


class _Piece(_Indexed):
    """What counts of an `ai_response` or an `ai_reasoning`."""

    content: str = ""
    done: bool = False
    candidate: int = 0
    finish_reason: str | None = None
    usage: Usage | None = None


_INDEXED = msgspec.json.Decoder(_Indexed)
_PIECE = msgspec.json.Decoder(_Piece)
_ERROR = msgspec.json.Decoder(AiError)


def event(data: Any) -> bytes:
    """`data` as one event of a stream."""
    return b"data: %b\n\n" % frame.escaped(msgspec.json.encode(data))


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that can't go on."""
    return b"data: %b\n\n" % frame.escaped(error.body())


class _Sent:
    """What was sent of one text, and how far an attempt that began again has come in it."""

    __slots__ = ("_pieces", "_text", "matched")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._text: str | None = None
        self.matched = 0

    def restart(self) -> None:
        self._text = "".join(self._pieces)
        self._pieces = [self._text]
        self.matched = 0

    @property
    def behind(self) -> bool:
        """Whether the present attempt has not come as far as an earlier one."""
        return self._text is not None and self.matched < len(self._text)

    def take(self, content: str) -> str | None:
        """The part of `content` that was not sent before; None if it differs from what was."""
        if self._text is not None and self.matched < len(self._text):
            again = content[: len(self._text) - self.matched]
            if not self._text.startswith(again, self.matched):
                return None
            self.matched += len(again)
            content = content[len(again) :]
        if content:
            self._pieces.append(content)
        return content


class _Choice:
    def __init__(self) -> None:
        self.content = _Sent()
        self.reasoning: _Sent | None = _Sent()
        """None once an attempt thinks otherwise than an earlier one: its thoughts are not sent."""
        self.finished = False


class ChunkTranslator:
    """One completion's stream. `take` a job's events in their order, until `over`.

    What was sent can't be taken back in OpenAI's protocol. So an attempt that begins again is held back as long as it
    says what was said before, and goes on from there. If it says something else, the stream ends with an error.
    """

    def __init__(self, head: ChunkHead, candidates: int, include_usage: bool) -> None:
        self._head = head.fields("chat.completion.chunk")
        self._include_usage = include_usage
        self._choices = [_Choice() for _ in range(candidates)]
        self._begun = False
        self._index = 0
        """Of the attempt's next event."""
        self.over = False
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    def take(self, event_type: str, data: bytes) -> bytes:
        """What `data` adds to the stream; empty for nothing, and for what can't be read: it is somebody else's.

        Raises ApiError if the stream ends with it instead.
        """
        try:
            return self._take(event_type, mended_json(data))
        except UNREADABLE:
            return b""

    def _take(self, event_type: str, data: bytes) -> bytes:
        if event_type == answers.ERROR:
            raise job_failed(_ERROR.decode(data))
        if event_type == answers.RESTART:
            self._index = 0
            for choice in self._choices:
                choice.content.restart()
                if choice.reasoning is not None:
                    choice.reasoning.restart()
            return b""
        if event_type in (answers.PROGRESS, answers.ARTIFACT, answers.TRANSCRIPT):
            self._count(_INDEXED.decode(data).index)
        if event_type not in (answers.RESPONSE, answers.REASONING):
            return b""
        piece = _PIECE.decode(data)
        self._count(piece.index)
        if not 0 <= piece.candidate < len(self._choices):
            return b""
        begin = b"" if self._begun else self._begin()
        found = self._text(piece.candidate, piece.content, event_type == answers.REASONING)
        if piece.done:
            return begin + found + self._end(piece)
        if piece.finish_reason is not None:
            found += self._finish(piece.candidate, piece.finish_reason)
        return begin + found

    def _count(self, index: int | None) -> None:
        """Raises ApiError if events before this one have left the stream: a text with a hole is no answer."""
        if index is not None:
            if index > self._index:
                raise _not_kept()
            self._index = index + 1

    def _begin(self) -> bytes:
        self._begun = True
        start = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(number, start) for number in range(len(self._choices)))

    def _text(self, number: int, content: str, reasoning: bool) -> bytes:
        choice = self._choices[number]
        if reasoning:
            fresh = choice.reasoning.take(content) if choice.reasoning is not None else ""
            if fresh is None:
                choice.reasoning = None
            return self._chunk(number, {"reasoning_content": fresh}) if fresh else b""
        fresh = choice.content.take(content)
        if fresh is None or (fresh and choice.finished):
            raise _diverged()
        return self._chunk(number, {"content": fresh}) if fresh else b""

    def _finish(self, number: int, reason: str) -> bytes:
        choice = self._choices[number]
        if choice.content.behind:
            raise _diverged()
        if choice.finished:
            return b""
        choice.finished = True
        return self._chunk(number, {}, reason)

    def _end(self, last: _Piece) -> bytes:
        self.over, self.usage, self.finish_reason = True, last.usage, last.finish_reason
        if last.finish_reason == CANCELLED:
            raise job_cancelled()
        reason = last.finish_reason or "stop"
        found = b"".join(self._finish(number, reason) for number in range(len(self._choices)))
        if self._include_usage:
            found += event({**self._head, "choices": [], "usage": _usage(last.usage)})
        return found + DONE

    def _chunk(self, number: int, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage: dict[str, None] = {"usage": None} if self._include_usage else {}
        return event({**self._head, "choices": [choice], **usage})


def completion(head: ChunkHead, answer: Answer) -> bytes:
    """A finished answer as one document. Raises ApiError if the job failed, or if its answer is not whole."""
    if answer.error is not None:
        raise job_failed(answer.error)
    if answer.finish_reason == CANCELLED:
        raise job_cancelled()
    if not (answer.whole and answer.done):
        raise _not_kept()
    document = head.fields("chat.completion")
    if answer.model:
        document["model"] = answer.model
    document["choices"] = list(_choices(answer))
    document["usage"] = _usage(answer.usage)
    return msgspec.json.encode(document)


def _choices(answer: Answer) -> Iterable[dict[str, Any]]:
    for number, candidate in enumerate(answer.candidates):
        message: dict[str, Any] = {"role": "assistant", "content": candidate.content, "refusal": None}
        if candidate.reasoning:
            message["reasoning_content"] = candidate.reasoning
        reason = candidate.finish_reason or answer.finish_reason or "stop"
        yield {"index": number, "message": message, "logprobs": None, "finish_reason": reason}


def _usage(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _not_kept() -> ApiError:
    return ApiError(404, "The answer is not kept any more, or not all of it.", code="not_found")


def _diverged() -> ApiError:
    message = "The answer was begun again and came out differently; what was sent of it is void."
    return ApiError(500, message, SERVER, code="answer_restarted", headers=NOT_AGAIN)
