"""A server with OpenAI's chat completions whose answers and faults are known; and clips to ask it about."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from ecmf_lib.config import EMOTIONS
from ecmf_lib.cues import Cues

#: Faults of the transport: another attempt may go through.
TRANSPORT = ("429", "500", "hang", "disconnect", "cut", "garbled")
#: Faults of the answer: asking the same again gives the same.
ANSWERS = ("not json", "cut off", "wrong schema", "unknown class", "empty", "wrong language", "scored")


def clips(n: int, *, language: str = "en") -> list[Cues]:
    """Clips that all differ."""
    words = {"en": "So this is what happened on day {}.", "zh": "第{}天就是这样过去的。"}[language]
    return [
        Cues(f"clip{i:04d}", words.format(i), language, voice=(f"pitch rises {i} times",), face=("smiles",))
        for i in range(n)
    ]


def good_answer(data: dict, language: str = "en") -> dict:
    """A valid answer about a clip, as the prompt asks for it."""
    cues = [*data["voice"], *data["face"], *data["words"]]
    said = {
        "en": "The speaker seems pleased and a little proud, and the words are meant as they sound.",
        "zh": "说话人显得高兴,还有一点骄傲,话语就是字面意思,没有讽刺。",
    }
    return {
        "evidence_words": [data["transcript"][:40].strip()],
        "evidence_cues": cues[:2],
        "wants": "To be heard.",
        "tone": "sincere",
        "description": said[language],
        "scores": dict(zip(EMOTIONS, (0.1, 0.0, 0.7, 0.0, 0.1, 0.1), strict=True)),
    }


def answer_text(kind: str, messages: list[dict]) -> tuple[str, str]:
    """Content and finish reason of an answer of this kind."""
    data = json.loads(messages[1]["content"])
    language = "zh" if "研究" in messages[0]["content"] else "en"
    answer = good_answer(data, language)
    if kind == "wrong schema":
        del answer["tone"]
    if kind == "unknown class":
        answer["scores"]["disgust"] = 0.1
    if kind == "wrong language":
        answer["description"] = good_answer(data, "en" if language == "zh" else "zh")["description"]
    if kind == "scored":
        answer["description"] += " happy: 0.8"
    text = json.dumps(answer, ensure_ascii=False)
    if kind == "cut off":
        return text[: len(text) // 2], "length"
    return {"not json": "Sure! The speaker is happy.", "empty": ""}.get(kind, text), "stop"


@dataclass
class FaultServer:
    """Runs in a thread of this process, on a free port of 127.0.0.1.

    Parameters
    ----------
    faults : sequence of str
        Of :data:`TRANSPORT` and :data:`ANSWERS`.
    share : float
        Of the requests that meet one, drawn by `seed`, what is asked and how often it was asked before (for faults of
        answers: not how often).
    status, headers : int, dict
        Answer everything with this status instead.
    say : callable, optional
        Messages → content, in place of the good answer.
    """

    faults: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    delay: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    say: object = None
    asked: list[dict] = field(default_factory=list)  # bodies of requests, in the order in which they came
    heard: list[dict] = field(default_factory=list)  # their headers
    times: Counter = field(default_factory=Counter)  # what was asked → how often
    answered: Counter = field(default_factory=Counter)  # what was asked → how often an answer to it was sent whole
    met: Counter = field(default_factory=Counter)  # kind of fault → how often
    most_at_once: int = 0
    _at_once: int = 0

    def __enter__(self) -> FaultServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the server stops
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request and answer it; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        self.asked.append(body)
        self.heard.append({":line": head[0], **headers})
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.delay)
            return await self._answer(body["messages"], writer)
        finally:
            self._at_once -= 1

    async def _answer(self, messages: list[dict], writer: asyncio.StreamWriter) -> bool:
        kind = self._kind(messages)
        self.met[kind] += 1
        if self.status:
            return await _send(writer, self.status, b'{"error": {"message": "so it is"}}', self.headers)
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "disconnect":
            return False
        if kind == "429":
            return await _send(writer, 429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.01"})
        if kind == "500":
            return await _send(writer, 500, b"<html>oh</html>", {})
        if kind == "garbled":
            return await _send(writer, 200, b'{"choices": []}', {})
        content, finish = (self.say(messages), "stop") if self.say else answer_text(kind, messages)
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        if kind == "cut":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
            await writer.drain()
            return False
        await _send(writer, 200, body, {"Content-Type": "application/json"})
        self.answered[digest(messages)] += 1
        return True

    def _kind(self, messages: list[dict]) -> str:
        what = digest(messages)
        self.times[what] += 1
        # what is wrong with an answer depends on the question alone, what goes wrong on the way on the attempt too
        for kinds, about in ((ANSWERS, what), (TRANSPORT, f"{what}/{self.times[what]}")):
            chance = random.Random(f"{self.seed}/{about}")
            mine = [fault for fault in self.faults if fault in kinds]
            if mine and chance.random() < self.share * len(mine) / len(self.faults):
                return chance.choice(mine)
        return "answer"


def digest(messages: list[dict]) -> str:
    """What is asked, in short."""
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]) -> bool:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return True
