"""Context-enriched text: cues → prompt → language model → checked answer → what the text encoder reads.

Three enrichers behind one call: :class:`CuesEnricher` (no model, the offline default), :class:`LLMEnricher` (any server
with OpenAI's chat completions) and :class:`LocalEnricher` (a model of transformers in process). Their order of work is
the same: what the cache holds is read first, the rest is asked, and every clip comes out exactly once.

* :mod:`ecmf_lib.enrich_prompt`: what is asked; ``ecmf_lib/prompts`` holds the words
* :mod:`ecmf_lib.enrich_talk`: ask, check, repair once, fall back
* :mod:`ecmf_lib.enrich_answer`: the checks
* :mod:`ecmf_lib.enrich_cache`: raw answers on disk
* :mod:`ecmf_lib.enrich_llm`, :mod:`ecmf_lib.enrich_address`: servers
* :mod:`ecmf_lib.enrich_local`: a model in process
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import pandas as pd
from tqdm import tqdm

from ecmf_lib.config import EMOTIONS
from ecmf_lib.cues import Cues
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_llm import LLMEnricher
from ecmf_lib.enrich_local import LocalEnricher
from ecmf_lib.enrich_prompt import EnrichError
from ecmf_lib.enrich_talk import Enrichment, Reply, Talk, cues_text

__all__ = [
    "Bill",
    "CuesEnricher",
    "EnrichError",
    "Enrichment",
    "LLMEnricher",
    "LocalEnricher",
    "enrich",
    "enrichment_table",
    "estimate",
    "spent",
]

_READ_AT_ONCE = 1000  # clips whose answers are looked up together
_TYPICAL_ANSWER = 260  # tokens of an answer in the form that the prompts ask for


@dataclass(frozen=True)
class CuesEnricher:
    """No model: a readable description made from the cues."""


Enricher = CuesEnricher | LLMEnricher | LocalEnricher


def enrich(
    cues: Sequence[Cues],
    enricher: Enricher,
    *,
    cache: Path | str | None,
    progress: bool = True,
    engine: str = "local",
) -> list[Enrichment]:
    """Enrich clips.

    Parameters
    ----------
    cues : sequence of Cues
    enricher : CuesEnricher, LLMEnricher or LocalEnricher
    cache : path or None
        SQLite file with the raw answers, made where it is not there. Clips whose answers are in it cost nothing, and a
        run that was interrupted goes on where it was. None keeps answers in memory only.
    progress : bool
        Show what the run will take, and a bar.
    engine : {"local", "ray"}
        With "ray" a :class:`LocalEnricher` generates on the nodes of a Ray cluster, which see the words then; see
        :mod:`ecmf_lib.cluster_enrich`. For the others it changes nothing: a server is asked from here.

    Returns
    -------
    list of Enrichment
        One a clip, in the order of `cues`. A clip that gets no usable answer is there with state "fallback".

    Raises
    ------
    EnrichError
        For what only the user can mend: no server, a wrong key or model, an unusable cache, no answer in replay.
        Answers that came before are kept.
    """
    if isinstance(enricher, CuesEnricher):
        return [Enrichment(clip.id, cues_text(clip), None, "cues", "", "cues") for clip in cues]
    results: list[Enrichment | None] = [None] * len(cues)
    with Replies(_existing(cache) if enricher.replay else cache) as replies:
        waiting: dict[bytes, list[int]] = {}  # clips that ask the same are asked once
        for place, talk, _ in _recalled(cues, enricher, replies):
            if talk.request is None:
                results[place] = talk.result
            else:
                waiting.setdefault(talk.key, []).append(place)
        if waiting and enricher.replay:
            _refuse_replay(cues, waiting, cache)
        if waiting:
            _ask(cues, enricher, replies, waiting, results, progress, engine)
    return results


def _ask(
    cues: Sequence[Cues],
    enricher: LLMEnricher | LocalEnricher,
    replies: Replies,
    waiting: dict[bytes, list[int]],
    results: list[Enrichment | None],
    progress: bool,
    engine: str,
) -> None:
    """Ask for what is not in the cache, and fill it into the results."""
    if progress:
        bill = _estimate([cues[places[0]] for places in waiting.values()], enricher, len(cues))
        print(bill, file=sys.stderr)
    fallbacks = 0
    with tqdm(total=len(cues), desc="enriching", unit="clip", disable=not progress) as bar:
        bar.update(len(cues) - sum(map(len, waiting.values())))

        def done(talk: Talk) -> None:
            nonlocal fallbacks
            for place in waiting[talk.key]:
                results[place] = replace(talk.result, id=cues[place].id)
            fallbacks += talk.result.state == "fallback"
            bar.update(len(waiting[talk.key]))
            bar.set_postfix(fallbacks=fallbacks, refresh=False)

        talks = (Talk(cues[places[0]], enricher.setup) for places in waiting.values())
        if engine == "ray" and isinstance(enricher, LocalEnricher):
            from ecmf_lib.cluster_enrich import converse_on_ray

            converse_on_ray(enricher, talks, replies, done)
        else:
            enricher.converse(talks, replies, done)


def _recalled(
    cues: Sequence[Cues], enricher: LLMEnricher | LocalEnricher, replies: Replies
) -> Iterator[tuple[int, Talk, list[Reply]]]:
    """Each clip's talk, as far as the cache carries it, with the replies that it heard."""
    setup = enricher.setup
    for at in range(0, len(cues), _READ_AT_ONCE):
        talks = [Talk(clip, setup) for clip in cues[at : at + _READ_AT_ONCE]]
        heard: list[list[Reply]] = [[] for _ in talks]
        going = [place for place, talk in enumerate(talks) if talk.request]
        while going:
            known = replies.get([talks[place].request.key for place in going])
            found = [(place, known[key]) for place in going if (key := talks[place].request.key) in known]
            # what failed is asked again, unless nothing is to be sent: then it failed for good
            found = [(place, reply) for place, reply in found if enricher.replay or not reply.failure]
            for place, reply in found:
                heard[place].append(reply)
                talks[place].hear(reply)
            going = [place for place, _ in found if talks[place].request]
        yield from zip(range(at, at + len(talks)), talks, heard, strict=True)


def _existing(cache: Path | str | None) -> Path | str | None:
    """A cache that is only read: not made if it is not there."""
    return cache if cache is not None and Path(cache).is_file() else None


def _refuse_replay(cues: Sequence[Cues], waiting: dict[bytes, list[int]], cache: Path | str | None) -> NoReturn:
    first = cues[next(iter(waiting.values()))[0]]
    missing = sum(map(len, waiting.values()))
    raise EnrichError(
        f"replay: no answer about clip '{first.id}' in {cache or 'the cache, as none is given'} "
        f"({missing} of {len(cues)} clips have none of this model, prompt and decoding); "
        "run once without replay, with the server there"
    )


@dataclass(frozen=True)
class Bill:
    """What an enrichment takes or took.

    Attributes
    ----------
    clips : int
    requests : int
        Sent, or to be sent.
    tokens_in, tokens_out : int
    cost : float or None
        In the currency of the prices; None where they are not known.
    estimated : bool
        Counted from lengths and without repairs, not by the server.
    """

    clips: int
    requests: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    estimated: bool

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        cost = "cost unknown, as no prices are given" if self.cost is None else f"cost {about}{self.cost:.2f}"
        still = "still to ask" if self.estimated else "asked"
        return (
            f"{self.clips:,} clips, {still}: {self.requests:,} requests, {about}{self.tokens_in:,} tokens in and "
            f"{self.tokens_out:,} out; {cost}"
        )


def estimate(cues: Sequence[Cues], enricher: LLMEnricher | LocalEnricher, *, cache: Path | str | None) -> Bill:
    """What enriching these clips would take, beyond what is in the cache.

    Tokens are estimated from lengths (four ASCII characters a token, one of any other character), as the tokenizer of a
    server is not known.
    """
    with Replies(_existing(cache)) as replies:
        left = {talk.key: talk.cues for _, talk, _ in _recalled(cues, enricher, replies) if talk.request}
    return _estimate(list(left.values()), enricher, len(cues))


def spent(cues: Sequence[Cues], enricher: LLMEnricher | LocalEnricher, *, cache: Path | str | None) -> Bill:
    """What the answers about these clips took that are in the cache, as the server counted (0 if it did not)."""
    with Replies(_existing(cache)) as replies:
        heard = {talk.key: told for _, talk, told in _recalled(cues, enricher, replies) if talk.key}
    all_told = [reply for told in heard.values() for reply in told]
    tokens_in, tokens_out = (sum(getattr(reply, name) for reply in all_told) for name in ("tokens_in", "tokens_out"))
    cost = _cost(enricher, tokens_in, tokens_out)
    return Bill(len(cues), len(all_told), tokens_in, tokens_out, cost, estimated=False)


def _estimate(asked: list[Cues], enricher: LLMEnricher | LocalEnricher, clips: int) -> Bill:
    requests = [Talk(clip, enricher.setup).request for clip in asked]
    tokens_in = sum(_tokens(request.prompt.instructions) + _tokens(request.data) for request in requests)
    tokens_out = len(requests) * min(_TYPICAL_ANSWER, enricher.max_tokens or _TYPICAL_ANSWER)
    return Bill(clips, len(requests), tokens_in, tokens_out, _cost(enricher, tokens_in, tokens_out), estimated=True)


@lru_cache(maxsize=16)  # the instructions, again and again
def _tokens(text: str) -> int:
    plain = len(text.encode("ascii", "ignore"))
    return round(plain / 4) + len(text) - plain


def _cost(enricher: LLMEnricher | LocalEnricher, tokens_in: int, tokens_out: int) -> float | None:
    prices = getattr(enricher, "price_in", None), getattr(enricher, "price_out", None)
    return None if None in prices else (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6


def enrichment_table(enriched: Sequence[Enrichment]) -> pd.DataFrame:
    """One row a clip: ``id, state, reason, by, tone, wants, evidence, text``; ``score_<class>``, NaN without scores."""
    rows = [
        {name: getattr(one, name) for name in ("id", "state", "reason", "by", "tone", "wants")}
        | {"evidence": " | ".join(one.evidence), "text": one.text}
        | {f"score_{name}": (one.scores or {}).get(name, float("nan")) for name in EMOTIONS}
        for one in enriched
    ]
    columns = ["id", "state", "reason", "by", "tone", "wants", "evidence", "text", *(f"score_{c}" for c in EMOTIONS)]
    return pd.DataFrame(rows, columns=columns)
