"""Ask any server with OpenAI's chat completions: vLLM, Ollama, llama.cpp, ``transformers serve``, hosted ones."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field

from ecmf_lib.enrich_address import check_address
from ecmf_lib.enrich_answer import Answer
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_prompt import EnrichError, check_number, load_prompt
from ecmf_lib.enrich_talk import Setup, Talk


@dataclass(frozen=True)
class LLMEnricher:
    """A language model behind a server.

    Parameters
    ----------
    base_url : str
        Such as ``http://127.0.0.1:8000/v1``.
    model : str
        As the server calls it.
    prompt : str
        Version of the prompt, a file of ``ecmf_lib/prompts``.
    allow_remote : bool
        Whether the transcripts may be sent to another machine.
    concurrency : int
        Most requests under way at once.
    timeout : float
        Seconds for one request, from connecting to the last byte.
    attempts : int
        Most times that one request is sent before its clip falls back to its cues.
    first_wait, longest_wait : float
        Seconds before the second attempt, doubled with every further one, and the most of any wait.
    temperature : float or None
        None leaves it to the server, as hosted reasoning models demand.
    max_tokens : int or None
        Of one answer.
    guided : bool
        Have the server hold the answer to the JSON schema. vLLM, llama.cpp, Ollama and hosted servers can;
        ``transformers serve`` ignores it.
    options : dict
        Further fields of the request, e.g. ``{"chat_template_kwargs": {"enable_thinking": False}}``.
    seed : int
        Of the server's sampling, and of the jitter in the waits.
    price_in, price_out : float or None
        Per million tokens, in any currency, for the estimate; None = unknown.
    key_variable : str
        Environment variable with the server's key. It is read when a run starts and never kept.
    replay : bool
        Send nothing: every answer has to be in the cache.

    Raises
    ------
    EnrichError
        For an address on another machine without `allow_remote`, an unknown prompt, or a number out of range.
    """

    base_url: str
    model: str
    prompt: str = "v1"
    allow_remote: bool = False
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 60.0
    temperature: float | None = 0.0
    max_tokens: int | None = 800
    guided: bool = False
    options: dict = field(default_factory=dict)
    seed: int = 0
    price_in: float | None = None
    price_out: float | None = None
    key_variable: str = "OPENAI_API_KEY"
    replay: bool = False

    def __post_init__(self) -> None:
        for name, kind in {"concurrency": int, "attempts": int, "timeout": int | float}.items():
            check_number(name, getattr(self, name), kind)
        if self.max_tokens is not None:
            check_number("max_tokens", self.max_tokens, int)
        for name in ("first_wait", "longest_wait"):
            check_number(name, getattr(self, name), int | float)
        for name in ("price_in", "price_out"):
            if getattr(self, name) not in (None, 0):
                check_number(name, getattr(self, name), int | float)
        for name in ("allow_remote", "guided", "replay"):
            if not isinstance(getattr(self, name), bool):  # "false" would be true
                raise EnrichError(f"{name} = {getattr(self, name)!r}: expected True or False")
        if not isinstance(self.options, dict):
            raise EnrichError(f"options = {self.options!r}: expected fields of the request by name")
        if not self.model or not isinstance(self.model, str):
            raise EnrichError(f"model = {self.model!r}: expected a model's name, as the server calls it")
        load_prompt(self.prompt, "en")
        if not self.replay:
            check_address(self.base_url, allow_remote=self.allow_remote)

    @property
    def body(self) -> dict:
        """Fields of every request apart from the model and the chat."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed, **self.options}
        if self.guided:
            # not "strict": hosted servers take that only for a part of JSON schema, and the answer is checked anyway
            schema = {"name": "answer", "schema": Answer.model_json_schema()}
            given["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def setup(self) -> Setup:
        """What answers depend on. The address is not part of it: the same model may move."""
        return Setup(self.model, json.dumps(self.body, sort_keys=True), self.prompt)

    def converse(self, talks: Iterable[Talk], replies: Replies, done: Callable[[Talk], None]) -> None:
        """Bring talks to their end, many at a time; `done` hears of each.

        Raises
        ------
        EnrichError
            If the server is not there, or refuses everybody. What was answered until then is in the cache.
        """
        _in_own_loop(lambda: self._converse(iter(talks), replies, done))

    async def _converse(self, talks: Iterator[Talk], replies: Replies, done: Callable[[Talk], None]) -> None:
        from ecmf_lib.enrich_line import Line  # the openai client takes half a second, and a cache is read without it

        async with Line(self) as line:

            async def worker() -> None:
                for talk in talks:
                    while talk.request:
                        request = talk.request
                        reply = replies.get([request.key]).get(request.key)
                        if reply is None or reply.failure:
                            reply = await line.ask(request)
                            replies.put([(request, talk.cues.id, reply)])
                        talk.hear(reply)
                    done(talk)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.concurrency):
                        group.create_task(worker())
            except* EnrichError as errors:
                raise errors.exceptions[0] from None


def _in_own_loop(work: Callable[[], Coroutine]) -> None:
    """Run a coroutine in a thread of its own: a notebook's own loop is running already and cannot be used.

    An interrupt in the calling thread cancels the work, and its connections are closed before this returns.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="enrichment", daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(work(), loop)
    try:
        future.result()
    finally:
        future.cancel()
        asyncio.run_coroutine_threadsafe(_settle(loop), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _settle(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.gather(*(asyncio.all_tasks(loop) - {asyncio.current_task()}), return_exceptions=True)
    await loop.shutdown_asyncgens()
