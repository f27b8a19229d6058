"""The call that everything else uses: order, states, replay, re-runs, what it costs."""

import json
import sqlite3
from dataclasses import replace

import pytest
from fault_server import FaultServer, clips, good_answer

from ecmf_lib.config import EMOTIONS
from ecmf_lib.cues import Cues, describe
from ecmf_lib.enrich import (
    CuesEnricher,
    EnrichError,
    LLMEnricher,
    enrich,
    enrichment_table,
    estimate,
    spent,
)

MIXED = [*clips(5), *clips(5, language="zh"), Cues("none", "", ""), Cues("voice only", "", "en", ("shouts",))]


def ask(server, cues, cache=None, **settings):
    settings = {"concurrency": 4, "first_wait": 0.01, "timeout": 10} | settings
    return enrich(cues, LLMEnricher(server.url, "m", **settings), cache=cache, progress=False)


def test_cues_enricher_describes_the_cues():
    enriched = enrich(MIXED, CuesEnricher(), cache=None)
    assert [one.text for one in enriched] == [describe(cues) for cues in MIXED]
    assert {(one.state, one.scores, one.by) for one in enriched} == {("cues", None, "cues")}


def test_each_clip_once_and_in_order():
    with FaultServer() as server:
        enriched = ask(server, MIXED)
        assert len(server.asked) == len(MIXED) - 1
    assert [one.id for one in enriched] == [clip.id for clip in MIXED]
    assert [one.state for one in enriched] == ["enriched"] * 10 + ["fallback", "enriched"]
    assert enriched[10].reason == "nothing to enrich: no words and no cues"
    first = enriched[0]
    assert first.by == "m, prompt v1.en" and enriched[5].by == "m, prompt v1.zh"
    assert first.text == good_answer({"transcript": "", "voice": [], "face": [], "words": []})["description"]
    assert first.scores == pytest.approx(dict(zip(EMOTIONS, (0.1, 0, 0.7, 0, 0.1, 0.1), strict=True)))
    assert first.evidence == ("So this is what happened on day 0.", "pitch rises 0 times", "smiles")
    assert not any(str(score) in one.text for one in enriched if one.scores for score in one.scores.values() if score)


def test_no_clips():
    with FaultServer() as server:
        assert ask(server, []) == []
    assert enrich([], CuesEnricher(), cache=None) == []


def test_clips_that_say_the_same_are_asked_once():
    cues = [replace(clip, id=f"{clip.id}/{copy}") for copy in range(3) for clip in clips(4)]
    with FaultServer() as server:
        enriched = ask(server, cues)
        assert len(server.asked) == 4
    assert [one.id for one in enriched] == [clip.id for clip in cues]
    assert [one.evidence for one in enriched[:4]] == [one.evidence for one in enriched[8:]]


def test_repair_names_the_problem_and_sends_the_answer_back():
    said = iter(["Happy!", None])

    def say(messages):
        return next(said) or json.dumps(good_answer(json.loads(messages[1]["content"])))

    with FaultServer(say=say) as server:
        (one,) = ask(server, clips(1))
        first, second = (body["messages"] for body in server.asked)
    assert one.state == "repaired" and "not one JSON object" in one.reason
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": "Happy!"}
    assert "not one JSON object" in second[3]["content"] and second[3]["role"] == "user"


@pytest.mark.parametrize(
    "fault", ["not json", "cut off", "wrong schema", "unknown class", "empty", "wrong language", "scored"]
)
def test_a_useless_answer_is_repaired_once_and_then_the_cues_are_used(fault):
    with FaultServer(faults=(fault,), share=1.0) as server:
        enriched = ask(server, clips(2) + clips(2, language="zh"))
        assert len(server.asked) == 8
    assert [one.text for one in enriched] == [describe(clip) for clip in clips(2) + clips(2, language="zh")]
    assert {(one.state, one.scores) for one in enriched} == {("fallback", None)}
    assert all(one.reason.startswith("answer: ") and "; repair: " in one.reason for one in enriched)


def test_run_again_costs_nothing_and_replay_needs_no_server(tmp_path):
    cache = tmp_path / "answers.sqlite"
    with FaultServer(faults=("not json", "scored"), share=0.5, seed=2) as server:
        enriched = ask(server, MIXED, cache)
        asked = len(server.asked)
        assert ask(server, MIXED, cache) == enriched
        assert len(server.asked) == asked
        url = server.url
    assert {"enriched", "repaired"} <= {one.state for one in enriched}
    replayed = enrich(MIXED, LLMEnricher(url, "m", replay=True), cache=cache, progress=False)
    assert replayed == enriched


def test_replay_names_the_first_clip_without_an_answer(tmp_path):
    cache = tmp_path / "answers.sqlite"
    with FaultServer() as server:
        ask(server, clips(3), cache)
        replay = LLMEnricher(server.url, "m", replay=True)
        with pytest.raises(EnrichError, match=r"clip 'clip0003'.*2 of 5 clips"):
            enrich(clips(5), replay, cache=cache, progress=False)
        with pytest.raises(EnrichError, match="clip 'clip0000'"):
            enrich(clips(1), replace(replay, model="other"), cache=cache, progress=False)
        asked = len(server.asked)
        with pytest.raises(EnrichError, match="clip 'clip0000'"):
            enrich(clips(1), replay, cache=tmp_path / "no such file", progress=False)
        with pytest.raises(EnrichError, match="none is given"):
            enrich(clips(1), replay, cache=None, progress=False)
        assert len(server.asked) == asked == 3
    assert not (tmp_path / "no such file").exists()


def test_only_the_repair_is_asked_where_only_it_is_missing(tmp_path):
    """An answer that could not be used had come, and then the run was ended."""
    cache = tmp_path / "answers.sqlite"
    with FaultServer(say=lambda messages: "not JSON") as server:
        ask(server, clips(1), cache)
        assert [len(body["messages"]) for body in server.asked] == [2, 4]
        with sqlite3.connect(cache) as base:
            base.execute("DELETE FROM replies WHERE rowid = 2")
        with pytest.raises(EnrichError, match="clip 'clip0000'"):
            enrich(clips(1), LLMEnricher(server.url, "m", replay=True), cache=cache, progress=False)
        server.asked.clear()
        ask(server, clips(1), cache)
        assert [len(body["messages"]) for body in server.asked] == [4]


def test_what_failed_is_asked_again_but_replayed_as_it_was(tmp_path):
    cache = tmp_path / "answers.sqlite"
    with FaultServer(status=500) as server:
        failed = ask(server, clips(2), cache, attempts=2)
    replayed = enrich(clips(2), LLMEnricher(server.url, "m", replay=True), cache=cache, progress=False)
    assert replayed == failed and failed[0].state == "fallback"
    with FaultServer() as server:
        assert [one.state for one in ask(server, clips(2), cache)] == ["enriched"] * 2


def test_estimate_and_what_was_spent(tmp_path):
    cache = tmp_path / "answers.sqlite"
    with FaultServer(faults=("not json",), share=1.0) as server:
        enricher = LLMEnricher(server.url, "m", price_in=2.0, price_out=10.0)
        before = estimate(MIXED, enricher, cache=cache)
        assert not cache.exists()
        enrich(MIXED, enricher, cache=cache, progress=False)
        after = spent(MIXED, enricher, cache=cache)
        assert estimate(MIXED, enricher, cache=cache).requests == 0
    assert (before.requests, after.requests) == (11, 22)  # with a repair each
    assert (after.tokens_in, after.tokens_out) == (2200, 220)
    assert after.cost == pytest.approx((2200 * 2 + 220 * 10) / 1e6)
    assert before.cost == pytest.approx((before.tokens_in * 2 + before.tokens_out * 10) / 1e6)
    assert "cost unknown" in str(estimate(MIXED, replace(enricher, price_in=None), cache=None))


def test_estimate_is_shown_before_the_first_request(capsys):
    with FaultServer() as server:
        enrich(clips(2), LLMEnricher(server.url, "m"), cache=None)
        told = capsys.readouterr()
    assert "2 clips, still to ask: 2 requests, about" in told.err and told.out == ""


def test_table_keeps_scores_apart_from_the_text():
    with FaultServer() as server:
        table = enrichment_table(ask(server, MIXED))
    assert table["id"].tolist() == [clip.id for clip in MIXED]
    assert table.loc[0, "score_happy"] == pytest.approx(0.7)
    assert table.loc[10, "score_happy"] != table.loc[10, "score_happy"]  # NaN: a fallback has none
    assert enrichment_table([]).columns.tolist() == table.columns.tolist()
