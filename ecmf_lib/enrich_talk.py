"""One clip's talk with a language model: ask, check, ask once more with the problem named, or fall back to the cues.

What is here sends nothing and waits for nothing. A :class:`Talk` says what to ask next and is given the reply; whether
that comes from the cache, a server or a model in process is the business of whoever drives it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from ecmf_lib.cues import Cues, describe
from ecmf_lib.enrich_answer import Answer, Unusable, check_answer, clean, shortened
from ecmf_lib.enrich_prompt import Prompt, as_data, clip_data, load_prompt, prompt_language

LONGEST_REASON = 300  # characters

#: Reason of a clip that no model is asked about.
NOTHING = "nothing to enrich: no words and no cues"


@dataclass(frozen=True)
class Enrichment:
    """What became of one clip.

    Attributes
    ----------
    id : str
    text : str
        What goes to the text encoder: a description without class scores; from the cues if no model gave a usable one.
    scores : dict of str to float, or None
        The model's scores by class, summing to one and kept apart from `text`; None if no model gave a usable answer.
    state : {"enriched", "repaired", "fallback", "cues"}
        First answer, second answer, cues in place of an answer, cues because that is what was asked for.
    reason : str
        Why it is not the first answer; "" if it is.
    by : str
        Model and prompt.
    tone, wants : str
        As the model put them.
    evidence : tuple of str
        Quotes that do occur in the transcript or the cues.
    """

    id: str
    text: str
    scores: dict[str, float] | None
    state: str
    reason: str
    by: str
    tone: str = ""
    wants: str = ""
    evidence: tuple[str, ...] = ()


class Reply(NamedTuple):
    """What came back: an answer, or why there is none."""

    text: str = ""
    finish: str = ""  # "length" if the model ran out of tokens
    tokens_in: int = 0  # as the server counted, 0 if it did not
    tokens_out: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Setup:
    """Who is asked: all that an answer depends on, apart from the clip and the prompt.

    Attributes
    ----------
    model : str
    decoding : str
        JSON of all settings that change what the model answers.
    version : str
        Of the prompt.
    """

    model: str
    decoding: str
    version: str


@dataclass(frozen=True)
class Request:
    """One question: a clip, or the same clip with an answer that has to be repaired."""

    setup: Setup
    prompt: Prompt
    data: str
    answer: str | None = None
    problem: str = ""

    @cached_property
    def key(self) -> bytes:
        """sha256 of all that the reply depends on: model, prompt, decoding, transcript and cues, answer to repair."""
        parts = [self.setup.model, self.prompt.digest, self.setup.decoding, self.data, self.answer, self.problem]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat to send."""
        return self.prompt.messages(self.data, answer=self.answer, problem=self.problem)


class Talk:
    """One clip's talk.

    Attributes
    ----------
    cues : Cues
    key : bytes or None
        Of the first request: clips with the same key have the same talk. None if there is nothing to ask.
    request : Request or None
        What to ask next; None when all is said.
    result : Enrichment or None
        There once all is said.
    """

    def __init__(self, cues: Cues, setup: Setup):
        self.cues = cues
        self.request: Request | None = None
        self.result: Enrichment | None = None
        self._steps = _steps(cues, setup)
        self.hear(None)
        self.key = self.request.key if self.request else None

    def hear(self, reply: Reply | None) -> None:
        """Go on with the reply to the last request."""
        try:
            self.request = self._steps.send(reply)
        except StopIteration as end:
            self.request, self.result = None, end.value


def _steps(cues: Cues, setup: Setup) -> Generator[Request, Reply, Enrichment]:
    prompt = load_prompt(setup.version, prompt_language(cues))
    data = clip_data(cues)
    by = f"{setup.model}, prompt {prompt.name}"
    if not any(data.values()):
        return _fallback(cues, by, NOTHING)
    first = Request(setup, prompt, as_data(data))
    reply = yield first
    if reply.failure:
        return _fallback(cues, by, reply.failure)
    try:
        return _enriched(cues, by, _checked(reply, cues, prompt), "enriched", "")
    except Unusable as problem:
        why = str(problem)
    again = yield Request(setup, prompt, first.data, reply.text, why)
    if again.failure:
        return _fallback(cues, by, f"answer: {why}; repair: {again.failure}")
    try:
        return _enriched(cues, by, _checked(again, cues, prompt), "repaired", f"answer: {why}")
    except Unusable as problem:
        return _fallback(cues, by, f"answer: {why}; repair: {problem}")


def _checked(reply: Reply, cues: Cues, prompt: Prompt) -> Answer:
    return check_answer(reply.text, cues, prompt.language, cut_off=reply.finish == "length")


def _enriched(cues: Cues, by: str, answer: Answer, state: str, reason: str) -> Enrichment:
    said = {"tone": answer.tone, "wants": answer.wants, "evidence": answer.evidence}
    return Enrichment(cues.id, answer.description, answer.shares(), state, _line(reason), by, **said)


def _fallback(cues: Cues, by: str, reason: str) -> Enrichment:
    return Enrichment(cues.id, cues_text(cues), None, "fallback", _line(reason), by)


def cues_text(cues: Cues) -> str:
    """The offline description: that of :func:`ecmf_lib.cues.describe`, on one line and bounded."""
    return shortened(clean(describe(cues)))


@lru_cache(maxsize=1024)
def _line(reason: str) -> str:
    return shortened(clean(reason), LONGEST_REASON)
