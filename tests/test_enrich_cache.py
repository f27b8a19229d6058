"""Answers on disk: nothing answered is asked twice, whatever ends a run."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import FaultServer, clips, digest

from ecmf_lib.cues import Cues
from ecmf_lib.enrich import EnrichError, LLMEnricher, enrich
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_talk import Reply, Setup, Talk

SETUP = Setup("m", "{}", "v1")
REQUEST = Talk(clips(1)[0], SETUP).request


def test_what_is_put_is_found_by_another_process(tmp_path):
    path = tmp_path / "deep" / "answers.sqlite"
    told = Reply("text \x00 你好 🙂", "stop", 3, 4)
    with Replies(path) as replies:
        replies.put([(REQUEST, "a", told)])
    with Replies(path) as replies:
        assert replies.get([REQUEST.key, b"other"]) == {REQUEST.key: told}


def test_raw_answers_can_be_read_by_people(tmp_path):
    path = tmp_path / "answers.sqlite"
    with Replies(path) as replies:
        replies.put([(REQUEST, "clip7", Reply("raw {", "length", 3, 4))])
    rows = sqlite3.connect(path).execute("SELECT model, prompt, clip, text, finish FROM replies").fetchall()
    assert rows == [("m", "v1.en", "clip7", "raw {", "length")]


def test_a_failure_is_replaced_by_an_answer_but_not_the_other_way_round(tmp_path):
    with Replies(tmp_path / "answers.sqlite") as replies:
        for told in (Reply(failure="lost"), Reply("answer"), Reply(failure="lost again"), Reply("another")):
            replies.put([(REQUEST, "a", told)])
        assert replies.get([REQUEST.key])[REQUEST.key].text == "answer"


def test_many_keys_at_once(tmp_path):
    requests = [Talk(clip, SETUP).request for clip in clips(1300)]
    with Replies(None) as replies:
        replies.put([(request, "a", Reply(str(at))) for at, request in enumerate(requests)])
        found = replies.get([request.key for request in requests])
    assert [found[request.key].text for request in requests] == [str(at) for at in range(1300)]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_what_is_no_cache_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(content)
    with pytest.raises(EnrichError, match="cannot be used as the cache of answers"):
        Replies(path)
    assert path.read_bytes() == content


def test_another_database_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE mine (x)")
    with pytest.raises(EnrichError, match="another kind or version"):
        Replies(path)
    with pytest.raises(EnrichError, match="cannot be used"):
        Replies(tmp_path / "other.sqlite" / "below")


def test_every_setting_that_changes_an_answer_changes_the_key(monkeypatch):
    cues = Cues("a", "Well.", "en", ("loud",))
    enricher = LLMEnricher("http://127.0.0.1:1/v1", "m")

    def key(cues=cues, **changes):
        return Talk(cues, replace(enricher, **changes).setup).key

    same = [
        key(),
        key(replace(cues, id="b")),
        key(base_url="http://127.0.0.1:2/v1"),
        key(concurrency=2, timeout=1.0, attempts=1, price_in=1.0, replay=True),
    ]
    other = [
        key(model="n"),
        key(temperature=0.1),
        key(max_tokens=5),
        key(seed=1),
        key(options={"top_k": 1}),
        key(guided=True),
        key(replace(cues, transcript="Well!")),
        key(replace(cues, voice=("quiet",))),
        key(replace(cues, voice=(), face=("loud",))),
        key(replace(cues, context=(("A", "Hm."),))),
        key(replace(cues, language="zh")),
    ]
    assert len(set(same)) == 1
    assert len({*same, *other}) == 1 + len(other)


def test_a_changed_prompt_changes_the_key(monkeypatch, tmp_path):
    from ecmf_lib import enrich_prompt

    before = Talk(clips(1)[0], SETUP).key
    for file in enrich_prompt.PROMPTS.glob("*.md"):
        (tmp_path / file.name).write_text(file.read_text("utf-8").replace("sincere", "honest"), "utf-8")
    monkeypatch.setattr(enrich_prompt, "PROMPTS", tmp_path)
    enrich_prompt.load_prompt.cache_clear()
    after = Talk(clips(1)[0], SETUP).key
    enrich_prompt.load_prompt.cache_clear()
    assert before != after


def test_two_writers_share_a_cache(tmp_path):
    """Each has a connection of its own, as two processes have."""
    path, cues = tmp_path / "answers.sqlite", clips(200)

    def fill(start):
        with Replies(path) as replies:
            for clip in cues[start::2]:
                replies.put([(Talk(clip, SETUP).request, clip.id, Reply(clip.id))])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, (0, 1)))
    with Replies(path) as replies:
        found = replies.get([Talk(clip, SETUP).key for clip in cues])
    assert [found[Talk(clip, SETUP).key].text for clip in cues] == [clip.id for clip in cues]


_RUN = """
import sys
sys.path.insert(0, sys.argv[3])
from fault_server import clips
from ecmf_lib.enrich import LLMEnricher, enrich
enrich(clips(300), LLMEnricher(sys.argv[1], "m", concurrency=6), cache=sys.argv[2], progress=False)
"""


def test_kill_in_the_middle_and_resume(tmp_path):
    """kill -9, twice over: no request whose answer had come is sent again."""
    cache, cues, kept = tmp_path / "answers.sqlite", clips(300), set()
    with FaultServer(delay=0.01) as server:
        enricher = LLMEnricher(server.url, "m", concurrency=6)
        asked = {(talk := Talk(clip, enricher.setup)).key: digest(talk.request.messages) for clip in cues}
        for until in (60, 150):
            server.times.clear()
            process = subprocess.Popen([sys.executable, "-c", _RUN, server.url, cache, str(Path(__file__).parent)])
            limit = time.monotonic() + 60
            while len(server.answered) < until and time.monotonic() < limit and process.poll() is None:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
            time.sleep(0.1)  # for what is under way in the server
            assert not kept & set(server.times)
            with Replies(cache) as replies:
                kept = {asked[key] for key in replies.get([*asked])}
            assert len(kept) >= len(server.answered) - 6  # all but those that were under way
        server.times.clear()
        enriched = enrich(cues, enricher, cache=cache, progress=False)
        assert set(server.times) == set(asked.values()) - kept
    assert [one.id for one in enriched] == [clip.id for clip in cues]
    assert {one.state for one in enriched} == {"enriched"}
