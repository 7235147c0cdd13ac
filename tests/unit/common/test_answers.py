import msgspec

from tidegate_common.contract.answers import (
    AiArtifact,
    AiDone,
    AiError,
    AiProgress,
    AiResponse,
    AiRestart,
    AiTranscript,
    Answer,
    AnswerBuilder,
)
from tidegate_common.contract.jobs import Usage


def answer(*events: tuple[str, msgspec.Struct]) -> Answer:
    found = AnswerBuilder()
    for event_type, data in events:
        found.take(event_type, msgspec.json.encode(data))
    return found.answer()


def text(index: int, content: str, candidate: int = 0, reason: str | None = None) -> tuple[str, AiResponse]:
    piece = AiResponse(job_id="j", index=index, content=content, candidate=candidate, finish_reason=reason)
    return "ai_response", piece


def test_pieces_come_to_one_text_for_each_candidate_and_the_end_says_why() -> None:
    thought = ("ai_reasoning", AiResponse(job_id="j", index=0, content="hm"))
    last = ("ai_response", AiDone(job_id="j", index=4, finish_reason="stop", usage=Usage(3, 4), model="m"))
    found = answer(thought, text(1, "a"), text(2, "x", 1, "length"), text(3, "b"), last)
    assert [(each.reasoning, each.content, each.finish_reason) for each in found.candidates] == [
        ("hm", "ab", "stop"),
        ("", "x", "length"),
    ]
    assert (found.done, found.whole, found.pieces, found.usage, found.model) == (True, True, 5, Usage(3, 4), "m")


def test_a_restart_voids_what_came_before_it() -> None:
    found = answer(text(0, "old"), ("ai_restart", AiRestart(job_id="j", attempt=2)), text(0, "new"))
    assert (found.candidates[0].content, found.pieces, found.whole) == ("new", 1, True)


def test_of_an_answer_without_its_end_the_events_of_text_count_as_its_tokens() -> None:
    thought = ("ai_reasoning", AiResponse(job_id="j", index=0, content="hm"))
    progress = ("ai_progress", AiProgress(job_id="j", state="running", index=1, fraction=0.5))
    assert answer(thought, progress, text(2, "a"), text(3, "", 0, "stop")).usage == Usage(0, 2)
    assert answer(progress).usage is None


def test_an_answer_whose_beginning_is_missing_is_not_whole() -> None:
    assert not answer(text(3, "late")).whole


def test_later_artifacts_and_segments_replace_those_of_the_same_name_or_number() -> None:
    def picture(index: int, content: str) -> tuple[str, AiArtifact]:
        return "ai_artifact", AiArtifact(job_id="j", index=index, name="p", media_type="image/png", content=content)

    def said(index: int, number: int, words: str) -> tuple[str, AiTranscript]:
        return "ai_transcript", AiTranscript(
            job_id="j", index=index, segment=number, text=words, start=0, end=1, confidence=0.5
        )

    found = answer(picture(0, "A"), said(1, 1, "b"), said(2, 0, "a"), picture(3, "B"), said(4, 1, "c"))
    assert [each.content for each in found.artifacts] == ["B"]
    assert [each.text for each in found.transcript] == ["a", "c"]


def test_two_candidates_may_each_have_an_artifact_of_one_name() -> None:
    def picture(index: int, candidate: int, content: str) -> tuple[str, AiArtifact]:
        return "ai_artifact", AiArtifact(
            job_id="j", index=index, name="p", media_type="image/png", content=content, candidate=candidate
        )

    found = answer(picture(0, 0, "A"), picture(1, 1, "B"), picture(2, 0, "C"))
    assert [(each.candidate, each.content) for each in found.artifacts] == [(1, "B"), (0, "C")]


def test_progress_counts_only_where_it_is_an_event_of_the_answer() -> None:
    queued = ("ai_progress", AiProgress(job_id="j", state="queued", position=3))
    running = ("ai_progress", AiProgress(job_id="j", state="running", index=0, fraction=0.5))
    assert answer(queued, running).pieces == 1


def test_an_error_is_an_end_and_unknown_events_are_passed_over() -> None:
    found = answer(("note", AiRestart(job_id="j", attempt=1)), ("ai_error", AiError(job_id="j", code="c", message="m")))
    assert found.done
    assert found.error is not None
    assert found.error.code == "c"


def test_a_candidates_own_end_counts_before_that_of_the_job() -> None:
    last = ("ai_response", AiDone(job_id="j", index=2, finish_reason="stop", usage=Usage()))
    found = answer(text(0, "a", 0, "length"), text(1, "b", 1, "stop"), last)
    assert [each.finish_reason for each in found.candidates] == ["length", "stop"]
    assert found.finish_reason == "stop"
