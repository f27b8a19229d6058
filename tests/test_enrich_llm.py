"""Requests to a server: attempts, waits, faults, and where they may go."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from fault_server import ANSWERS, TRANSPORT, FaultServer, answer_text, clips

from ecmf_lib import enrich_line
from ecmf_lib.enrich import EnrichError, LLMEnricher, enrich
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_line import retry_after
from ecmf_lib.enrich_talk import Setup, Talk

FAST = {"timeout": 2.0, "first_wait": 0.01, "concurrency": 32}


def run(server, n=4, cache=None, **settings):
    enricher = LLMEnricher(server.url, "m", **FAST | settings)
    return enrich(clips(n), enricher, cache=cache, progress=False)


def test_thousand_clips_through_a_faulty_server(tmp_path):
    """30 % of the requests meet a fault of the transport or of the answer."""
    cues, cache = clips(1000), tmp_path / "answers.sqlite"
    with FaultServer(faults=TRANSPORT + ANSWERS, share=0.3, seed=5) as server:
        # so patient that a busy machine does not give up an answer that is on its way, as that would come twice
        enricher = LLMEnricher(server.url, "m", **FAST)
        enriched = enrich(cues, enricher, cache=cache, progress=False)
        asked = len(server.asked)
        lost = {one.id for one in enriched if "attempts failed" in one.reason}  # no answer came: to be asked again
        assert all(server.met[fault] for fault in TRANSPORT + ANSWERS)
        assert max(server.answered.values()) == 1  # no answer that came was asked for again
        assert [one.id for one in enriched] == [clip.id for clip in cues]
        states = Counter(one.state for one in enriched)
        assert set(states) == {"enriched", "repaired", "fallback"} and states.total() == 1000
        assert states["enriched"] > 700 and states["repaired"] > 50
        for one in enriched:
            assert (
                one.text
                and (one.scores is None) == (one.state == "fallback")
                and bool(one.reason) == (one.state != "enriched")
            )
        again = enrich(cues, enricher, cache=cache, progress=False)
        told = {clip.transcript: clip.id for clip in cues}
        assert {told[json.loads(body["messages"][1]["content"])["transcript"]] for body in server.asked[asked:]} == lost
    assert all(after == before or before.id in lost for before, after in zip(enriched, again, strict=True))


def test_the_same_seed_meets_the_same_end():
    ends = []
    for concurrency in (1, 16):
        with FaultServer(faults=("429", "500", "empty", "not json"), share=0.6, seed=3) as server:
            ends.append(run(server, 60, attempts=2, concurrency=concurrency, timeout=20))
    assert ends[0] == ends[1]
    assert {one.state for one in ends[0]} == {"enriched", "repaired", "fallback"}


@pytest.mark.parametrize("fault", TRANSPORT)
def test_a_fault_that_does_not_pass_is_a_fallback_after_so_many_attempts(fault):
    with FaultServer(faults=(fault,), share=1.0) as server:
        enriched = run(server, 2, attempts=3, timeout=0.5 if fault == "hang" else 20)
        assert len(server.asked) == 6
    assert [one.state for one in enriched] == ["fallback"] * 2
    assert all(one.reason.startswith("3 attempts failed") for one in enriched)


def test_a_dripping_answer_counts_as_a_timeout():
    """A server that sends a byte now and then never lets a limit on single reads run out."""
    content = answer_text("answer", Talk(clips(1)[0], Setup("m", "{}", "v1")).request.messages)[0]
    body = " " * 40 + json.dumps({"choices": [{"message": {"content": content}}]})

    def drip(listener):
        connection, _ = listener.accept()
        connection.recv(65536)
        try:
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            for sign in body[:40]:
                connection.sendall(sign.encode())
                time.sleep(0.05)
            connection.sendall(body[40:].encode())
        except OSError:
            pass
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        enricher = LLMEnricher(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "m", timeout=0.5, attempts=1)
        (one,) = enrich(clips(1), enricher, cache=None, progress=False)
        thread.join(10)
    assert one.state == "fallback" and "no answer within 0.5 s" in one.reason


def test_no_more_requests_at_once_than_allowed():
    with FaultServer(delay=0.01) as server:
        run(server, 40, concurrency=5, timeout=5)
        assert server.most_at_once == 5


def waits(monkeypatch, server, **settings):
    """Seconds waited between attempts."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(enrich_line.asyncio, "sleep", sleep)
    run(server, 1, **settings)
    monkeypatch.undo()
    return waited


def test_waits_double_with_seeded_jitter(monkeypatch):
    with _NoSleep(503) as server:
        first = waits(monkeypatch, server, first_wait=1.0, longest_wait=5.0, attempts=6)
        again = waits(monkeypatch, server, first_wait=1.0, longest_wait=5.0, attempts=6)
        other = waits(monkeypatch, server, first_wait=1.0, longest_wait=5.0, attempts=6, seed=1)
    assert first == again != other
    assert len(first) == 5
    for attempt, wait in enumerate(first):
        assert min(5.0, 2**attempt / 2) <= wait <= min(5.0, 2**attempt)


def test_retry_after_is_honoured_up_to_the_longest_wait(monkeypatch):
    with _NoSleep(429, "7") as server:
        assert waits(monkeypatch, server, first_wait=0.1, attempts=3) == [7.0, 7.0]
        assert waits(monkeypatch, server, first_wait=0.1, attempts=2, longest_wait=3.0) == [3.0]


class _NoSleep:
    """A blocking server with one answer, which does not use the event loop whose sleep is replaced."""

    def __init__(self, status, after=""):
        self._whole = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n"
        self._whole += (f"Retry-After: {after}\r\n" if after else "") + "\r\n{}"

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                got = b""
                while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < _length(got):
                    got += connection.recv(65536)
                connection.sendall(self._whole.encode())

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _length(head):
    return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.25", 0.25),
        ("Fri, 21 Nov 2025 12:00:30 GMT", 30.0),
        ("Fri, 21 Nov 2025 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("1e400", None),
    ],
)
def test_retry_after_header(header, seconds):
    assert retry_after(header, datetime(2025, 11, 21, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_clip_is_not_asked_again_and_falls_back(status):
    with FaultServer(status=status) as server:
        enriched = run(server, 3)
        assert len(server.asked) == 3
    assert all(one.state == "fallback" and f"status {status}" in one.reason for one in enriched)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_clip_would_get_ends_the_run(status):
    with FaultServer(status=status) as server:
        with pytest.raises(EnrichError, match=rf"refuses every request \(status {status}.*model's name 'm'"):
            run(server, 100, concurrency=2)
        assert len(server.asked) <= 4


def test_no_server_ends_the_run_and_says_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    enricher = LLMEnricher(f"http://127.0.0.1:{port}/v1", "m", attempts=2, first_wait=0.01)
    with pytest.raises(EnrichError, match=r"no server there.*replay=True") as caught:
        enrich(clips(3), enricher, cache=None, progress=False)
    assert str(port) not in str(caught.value), "messages end in notebooks and logs"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status):
    with FaultServer() as other, FaultServer(status=status, headers={"Location": other.url + "/x"}) as server:
        with pytest.raises(EnrichError, match="redirects to another address"):
            run(server, 2)
        assert other.asked == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
def test_proxies_of_the_environment_are_not_used_for_this_machine(monkeypatch, name):
    with FaultServer() as proxy, FaultServer() as server:
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert [one.state for one in run(server, 2)] == ["enriched"] * 2
        assert proxy.asked == []


def test_the_key_comes_from_the_environment_and_stays_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-very-s3cret")
    cache = tmp_path / "answers.sqlite"
    with FaultServer() as server:
        run(server, 2, cache=cache, key_variable="MY_KEY")
        assert {heard["authorization"] for heard in server.heard} == {"Bearer sk-very-s3cret"}
        assert "s3cret" not in repr(LLMEnricher(server.url, "m", key_variable="MY_KEY"))
    for file in tmp_path.iterdir():
        assert b"s3cret" not in file.read_bytes()


@pytest.mark.parametrize("key", ["sk-s3cret\nX", "sk-“s3cret”", "sk-s3cret\x07X"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with FaultServer() as server, pytest.raises(EnrichError, match=r"\$MY_KEY holds signs") as caught:
        run(server, 1, key_variable="MY_KEY")
    assert "s3cret" not in str(caught.value)


def test_a_line_break_after_a_key_is_taken_off(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-s3cret\n")
    with FaultServer() as server:
        assert run(server, 1, key_variable="MY_KEY")[0].state == "enriched"
        assert server.heard[0]["authorization"] == "Bearer sk-s3cret"


@pytest.mark.parametrize(
    "usage", ['{"prompt_tokens": null}', f'{{"prompt_tokens": {10**20}}}', '{"prompt_tokens": -5}']
)
def test_an_odd_count_of_tokens_loses_no_answer(usage):
    content = answer_text("answer", Talk(clips(1)[0], Setup("m", "{}", "v1")).request.messages)[0]
    body = json.dumps({"choices": [{"message": {"content": content}}], "usage": 0}).replace('"usage": 0', '"usage": U')
    with _Fixed(body.replace("U}", usage + "}").encode()) as server:
        (one,) = enrich(clips(1), LLMEnricher(server.url, "m", attempts=1), cache=None, progress=False)
    assert one.state == "enriched"


def test_a_key_that_a_server_repeats_is_not_passed_on(monkeypatch):
    monkeypatch.setenv("MY_KEY", "so it is")  # what the fault server says in its errors
    with FaultServer(status=400) as server:
        (one,) = run(server, 1, key_variable="MY_KEY")
    assert "so it is" not in one.reason and "***" in one.reason


def test_body_of_a_request():
    with FaultServer() as server:
        run(server, 1, options={"top_p": 0.5}, max_tokens=77, temperature=None, seed=3, guided=True)
        (body,) = server.asked
    assert body["model"] == "m" and body["top_p"] == 0.5 and body["max_tokens"] == 77 and body["seed"] == 3
    assert "temperature" not in body
    assert body["response_format"]["json_schema"]["schema"]["required"][0] == "evidence_words"
    assert server.heard[0][":line"].startswith("POST /v1/chat/completions ")


def test_it_runs_inside_a_running_loop():
    """A notebook's cell runs in one."""

    async def cell():
        return run(server, 3)

    with FaultServer() as server:
        assert [one.state for one in asyncio.run(cell())] == ["enriched"] * 3


def test_an_interrupt_keeps_what_was_answered(tmp_path, monkeypatch):
    """Ctrl-C while requests are under way: the thread ends, answers are kept, the next run goes on."""
    cache = tmp_path / "answers.sqlite"
    put, kept = Replies.put, []

    def put_and_interrupt(self, replies):
        put(self, replies)
        kept.append(1)
        if len(kept) == 6:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with FaultServer(delay=0.05) as server:
        enricher = LLMEnricher(server.url, "m", concurrency=2)
        monkeypatch.setattr(Replies, "put", put_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            enrich(clips(20), enricher, cache=cache, progress=False)
        monkeypatch.undo()
        assert not [thread for thread in threading.enumerate() if thread.name == "enrichment"]
        asked = len(server.asked)
        assert asked < 20
        enriched = enrich(clips(20), enricher, cache=cache, progress=False)
        assert [one.state for one in enriched] == ["enriched"] * 20
        assert 20 <= len(server.asked) <= 22  # twice at most for those that were under way


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"concurrency": 0}, "concurrency = 0"),
        ({"attempts": 0}, "attempts = 0"),
        ({"timeout": float("nan")}, "timeout = nan"),
        ({"concurrency": 2.5}, "concurrency = 2.5"),
        ({"attempts": "3"}, "attempts = '3'"),
        ({"max_tokens": True}, "max_tokens = True"),
        ({"base_url": "https://api.example/v1", "allow_remote": "false"}, "allow_remote = 'false'"),
        ({"replay": "False"}, "replay = 'False'"),
        ({"guided": "no"}, "guided = 'no'"),
        ({"options": "x"}, "options = 'x'"),
        ({"price_in": "a"}, "price_in = 'a'"),
        ({"longest_wait": float("inf")}, "longest_wait = inf"),
        ({"model": ""}, "model = ''"),
        ({"prompt": "v0"}, "no prompt 'v0'"),
    ],
)
def test_settings_are_checked(settings, problem):
    with pytest.raises(EnrichError, match=problem):
        LLMEnricher(**{"base_url": "http://127.0.0.1:1/v1", "model": "m"} | settings)


def test_a_response_that_is_json_but_odd():
    """Lone surrogates, numbers for text, no usage: nothing of it crashes."""
    odd = ['"\\ud800"', "5", "null", '["a"]', '{"a": 1}']
    for content in odd:
        body = f'{{"choices": [{{"message": {{"content": {content}}}}}]}}'
        with _Fixed(body.encode()) as server:
            enricher = LLMEnricher(server.url, "m", attempts=1, timeout=2)
            (one,) = enrich(clips(1), enricher, cache=None, progress=False)
        assert one.state == "fallback", content
        json.dumps(one.reason).encode()


class _Fixed(_NoSleep):
    """Always the same body."""

    def __init__(self, body):
        super().__init__(200)
        self._whole = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body.decode()}"
