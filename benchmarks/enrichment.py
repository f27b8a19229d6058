"""Speed of the enrichment: requests to a server against what its delay allows, and reading answers back.

Run with ``python benchmarks/enrichment.py [--delay 0.5] [--concurrency 8 32] [--requests 40] [--clips 132171]``.

The server runs in a process of its own and answers every request a fixed time after it came, so that the bound is
concurrency ÷ delay. It is timed as a user sees it: from the call to the last clip, with the check of the address, the
import of the client and the writing of the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import pandas as pd
from rows import Row, record

from ecmf_lib.config import EMOTIONS
from ecmf_lib.cues import Cues
from ecmf_lib.enrich import LLMEnricher, enrich
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_talk import Reply, Talk

CHALLENGE = 132_171  # clips of MER2025-SEMI, labelled and unlabelled


def clip(number: int) -> Cues:
    """A clip as long as one of the challenge's, unlike every other."""
    return Cues(
        f"clip{number:06d}",
        f"你怎么现在才来,我已经等了{number}分钟,别人都走了。",
        "zh",
        voice=("louder than usual for this speaker", "pitch rises at the end", f"{number % 7} pauses"),
        face=("smiles (0.83)", "brows raised"),
        words=("negation: 没",),
    )


def answer(cues: Cues) -> str:
    """A valid answer about it."""
    return json.dumps(
        {
            "evidence_words": [cues.transcript[:12]],
            "evidence_cues": list(cues.voice[:2]),
            "wants": "希望对方解释为什么迟到。",
            "tone": "sincere",
            "description": "说话人显得不耐烦,也有些委屈,因为等了很久。声音比平时更响,语气是认真的,话语就是字面意思。",
            "scores": dict(zip(EMOTIONS, (0.1, 0.6, 0.0, 0.2, 0.1, 0.0), strict=True)),
        },
        ensure_ascii=False,
    )


def serve(delay: float, port) -> None:
    """Answer every request `delay` seconds after it came; puts the port into `port`."""
    content = {"role": "assistant", "content": answer(clip(0)).replace("你怎么现在才来", "别人都走了")}
    usage = {"prompt_tokens": 900, "completion_tokens": 260, "total_tokens": 1160}
    body = json.dumps({"choices": [{"index": 0, "message": content, "finish_reason": "stop"}], "usage": usage}).encode()
    whole = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(delay)
                writer.write(whole)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def throughput(delay: float, concurrency: int, requests: int) -> dict:
    """Clips per second against the bound."""
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    server = context.Process(target=serve, args=(delay, port), daemon=True)
    server.start()
    try:
        enricher = LLMEnricher(f"http://127.0.0.1:{port.get(timeout=60)}/v1", "bench", concurrency=concurrency)
        with tempfile.TemporaryDirectory() as folder:
            cues = [clip(number) for number in range(requests * concurrency)]
            start = time.perf_counter()
            enriched = enrich(cues, enricher, cache=Path(folder) / "answers.sqlite", progress=False)
            seconds = time.perf_counter() - start
    finally:
        server.terminate()
        server.join()
    usable = sum(one.state == "enriched" for one in enriched)
    bound = concurrency / delay
    row = {"concurrency": concurrency, "delay (s)": delay, "clips": len(cues), "usable": usable}
    return row | {"clips/s": len(cues) / seconds, "bound": bound, "of the bound": len(cues) / seconds / bound}


def read_back(clips: int) -> None:
    """Time and memory of reading a full cache, in a process of its own; prints them."""
    enricher = LLMEnricher("http://127.0.0.1:1/v1", "bench", replay=True)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "answers.sqlite"
        with Replies(cache) as replies:
            for start in range(0, clips, 5000):
                part = [clip(number) for number in range(start, min(start + 5000, clips))]
                talks = [Talk(cues, enricher.setup) for cues in part]
                replies.put([(talk.request, talk.cues.id, Reply(answer(talk.cues), "stop")) for talk in talks])
        size = cache.stat().st_size / 2**20
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cues = [clip(number) for number in range(clips)]
        start = time.perf_counter()
        enriched = enrich(cues, enricher, cache=cache, progress=False)
        seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    usable = sum(one.state == "enriched" for one in enriched)
    print(
        f"{clips} clips read back from {size:.0f} MiB in {seconds:.1f} s (goal: under 60), {usable} usable; "
        f"largest memory {memory:.0f} MiB, {before:.0f} before (goal: under 1024)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.5, help="seconds until the server answers")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--requests", type=int, default=40, help="requests one after the other in each place")
    parser.add_argument("--clips", type=int, default=CHALLENGE, help="to read back; 0 = none")
    given = parser.parse_args()

    rows = [throughput(given.delay, concurrency, given.requests) for concurrency in given.concurrency]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"))
    record([
        Row(f"language model, {row['concurrency']} requests at once", row["clips/s"], row["bound"], "clips/s",
            f"a server that answers after {given.delay:g} s", row["of the bound"], "of the bound", 0.85)
        for row in rows
    ])  # fmt: skip
    if given.clips:
        process = multiprocessing.get_context("spawn").Process(target=read_back, args=(given.clips,))
        process.start()
        process.join()
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
