"""A job's events on the wire, and what they come to.

`index` counts a job's events from 0 without holes, whatever their type; after `ai_restart` it starts anew. Exactly one
event is the last: an `ai_response` with `done: true`, or an `ai_error`. It carries the header `Tidegate-Job-End`.
"""

from __future__ import annotations

import msgspec

from tidegate_common.contract.jobs import Usage
from tidegate_common.contract.text import UNREADABLE, mended_json

RESPONSE = "ai_response"
REASONING = "ai_reasoning"
PROGRESS = "ai_progress"
ARTIFACT = "ai_artifact"
TRANSCRIPT = "ai_transcript"
RESTART = "ai_restart"
ERROR = "ai_error"

CANDIDATES = 64
"""An answer has no more: their numbers are below this."""


class AiResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_response` and `ai_reasoning`: the next piece of a candidate's text.

    If a job has several candidates, `finish_reason` is on the last piece of each, which may be empty.
    """

    job_id: str
    index: int
    content: str
    done: bool = False
    candidate: int = 0
    finish_reason: str | None = None


class AiDone(msgspec.Struct, frozen=True, kw_only=True):
    """Data of the last `ai_response` of a job that did not fail; `finish_reason` is `cancelled` if it was."""

    job_id: str
    index: int
    finish_reason: str
    usage: Usage
    content: str = ""
    done: bool = True
    candidate: int = 0
    model: str = ""


class AiProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Data of `ai_progress`. Of a queued job (volatile, without an index): its `position`, 1 for the next, and the
    `wait_seconds` that it may take; null if nothing is known. Of a running one: its share done, 0 to 1, and a note.
    """

    job_id: str
    state: str
    index: int | None = None
    position: int | None = None
    wait_seconds: float | None = None
    fraction: float | None = None
    note: str = ""


class AiArtifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Data of `ai_artifact`: something that is no text, as base64 in `content` or by reference in `url`.

    A later one of the same candidate and `name` replaces it; `final` if none follows.
    """

    job_id: str
    index: int
    name: str
    media_type: str
    content: str | None = None
    url: str | None = None
    final: bool = False
    candidate: int = 0


class AiTranscript(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_transcript`: what was said from `start` to `end` (seconds). A later one of the same `segment`
    corrects it; `final` if none follows. `confidence` is from 0 to 1.
    """

    job_id: str
    index: int
    segment: int
    text: str
    start: float
    end: float
    confidence: float
    final: bool = False


class AiRestart(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_restart`: what was shown so far is void, attempt `attempt` starts again at index 0."""

    job_id: str
    attempt: int


class AiError(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_error`, the last event of a job that failed: a short code and a text for people."""

    job_id: str
    code: str
    message: str
    done: bool = True


class Candidate(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One answer of those that a job asked for."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a job's events come to so far, as one document."""

    candidates: list[Candidate] = []
    artifacts: list[AiArtifact] = []
    transcript: list[AiTranscript] = []
    pieces: int = 0
    """Events of the answer: the index of the next one."""
    whole: bool = True
    """False if the stream keeps the answer's beginning no more."""
    done: bool = False
    """The last event was among them."""
    finish_reason: str | None = None
    usage: Usage | None = None
    """Of an answer whose last event does not say, or is not there: an event of text counts as a token."""
    model: str = ""
    error: AiError | None = None


class AnswerBuilder:
    """Makes one document of a job's events: `take` them in their order.

    Pieces are joined at the end: else an answer of a million characters would be copied for each of them.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._artifacts: dict[tuple[int, str], AiArtifact] = {}
        self._transcript: dict[int, AiTranscript] = {}
        self._answer = Answer()

    def take(self, event_type: str, data: bytes) -> None:
        """Adds one event. Types that it does not know are passed over. If an event can't be read, since it is somebody
        else's or of a newer release, the answer is not whole."""
        try:
            self._take(event_type, mended_json(data))
        except UNREADABLE:
            self._answer.whole = False

    def _take(self, event_type: str, data: bytes) -> None:
        if event_type == RESTART:
            for kept in (self._texts, self._reasons, self._artifacts, self._transcript):
                kept.clear()
            self._answer = Answer()
        elif event_type == ERROR:
            self._answer.error = _ERROR.decode(data)
            self._answer.done = True
        elif event_type in (RESPONSE, REASONING):
            self._text(event_type, _TEXT.decode(data))
        elif event_type == ARTIFACT:
            artifact = _ARTIFACT.decode(data)
            key = artifact.candidate, artifact.name
            self._artifacts.pop(key, None)
            self._artifacts[key] = artifact
            self._count(artifact.index)
        elif event_type == TRANSCRIPT:
            said = _TRANSCRIPT.decode(data)
            self._transcript[said.segment] = said
            self._count(said.index)
        elif event_type == PROGRESS:
            index = _PROGRESS.decode(data).index
            if index is not None:
                self._count(index)

    def answer(self) -> Answer:
        """What they came to."""
        several = range(1 + max((number for number, _ in self._texts), default=-1))
        candidates = [
            Candidate(
                content="".join(self._texts.get((number, RESPONSE), ())),
                reasoning="".join(self._texts.get((number, REASONING), ())),
                finish_reason=self._reasons.get(number),
            )
            for number in several
        ]
        texts = sum(1 for pieces in self._texts.values() for piece in pieces if piece)
        return msgspec.structs.replace(
            self._answer,
            usage=self._answer.usage or (Usage(completion_tokens=texts) if texts else None),
            candidates=candidates,
            artifacts=list(self._artifacts.values()),
            transcript=[self._transcript[number] for number in sorted(self._transcript)],
        )

    def _text(self, event_type: str, piece: _Text) -> None:
        if not 0 <= piece.candidate < CANDIDATES:
            raise msgspec.ValidationError("no answer has so many candidates")
        self._count(piece.index)
        self._texts.setdefault((piece.candidate, event_type), []).append(piece.content)
        if piece.finish_reason is not None:
            self._reasons.setdefault(piece.candidate, piece.finish_reason)
        if piece.done:
            answer = self._answer
            answer.done, answer.finish_reason = True, piece.finish_reason
            answer.usage, answer.model = piece.usage, piece.model

    def _count(self, index: int) -> None:
        self._answer.whole = self._answer.whole and index == self._answer.pieces
        self._answer.pieces = index + 1


class _Text(msgspec.Struct):
    index: int
    content: str
    done: bool = False
    candidate: int = 0
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""


_TEXT = msgspec.json.Decoder(_Text)
_ERROR = msgspec.json.Decoder(AiError)
_ARTIFACT = msgspec.json.Decoder(AiArtifact)
_TRANSCRIPT = msgspec.json.Decoder(AiTranscript)
_PROGRESS = msgspec.json.Decoder(AiProgress)
