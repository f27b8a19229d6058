"""An open connection to a server with OpenAI's chat completions: one request goes through, or it is said why not."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError, field_validator

from ecmf_lib.enrich_address import check_address, without_address
from ecmf_lib.enrich_prompt import EnrichError
from ecmf_lib.enrich_talk import Reply, Request

if TYPE_CHECKING:
    from ecmf_lib.enrich_llm import LLMEnricher

_AGAIN = {408, 409, 425, 429}  # and every 5xx: may well go through a moment later
_HOPELESS = {401, 403, 404, 405}  # the same for every clip: the key, the model's name or the address is wrong
#: Loggers that write every request's address, and with OPENAI_LOG=debug what was said, to whoever listens.
_TALKATIVE = ("openai", "httpx2", "httpcore2", "httpx", "httpcore")
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout)


class Line:
    """An open connection to a server.

    Parameters
    ----------
    enricher : LLMEnricher
        Its address is checked once more, as what ``localhost`` leads to can change.
    """

    def __init__(self, enricher: LLMEnricher):
        self._to = enricher
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        here = check_address(enricher.base_url, allow_remote=enricher.allow_remote)
        self._key = _key(enricher.key_variable)
        self._body = enricher.body
        self._answered = 0
        self._client = openai.AsyncOpenAI(
            base_url=enricher.base_url,
            api_key=self._key or "none",  # servers without a key ignore it, the client wants one
            max_retries=0,  # ours are seeded and counted
            timeout=enricher.timeout,
            # a redirect would carry the words elsewhere, and so would a proxy for what is on this machine
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=not here),
        )

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_) -> None:
        await self._client.close()

    async def ask(self, request: Request) -> Reply:
        """Send one request, several times if need be; a reply with a failure if none of them went through."""
        chance = random.Random(f"{self._to.seed}/{request.key.hex()}")
        for attempt in range(1, self._to.attempts + 1):
            try:
                async with asyncio.timeout(self._to.timeout):  # the client's own limit is for each read
                    reply = await self._send(request)
                self._answered += 1
                return reply
            except (openai.OpenAIError, TimeoutError, _Garbled) as error:
                trouble, unreachable = self._explain(error), isinstance(error.__cause__, _UNREACHABLE)
                if not self._passing(error):
                    self._stop_if_hopeless(error, trouble)
                    return Reply(failure=f"the server refused it: {trouble}")
                if attempt < self._to.attempts:
                    await asyncio.sleep(self._wait(attempt, error, chance))
        if unreachable:
            raise EnrichError(
                f"no server there, at base_url ({trouble}); start one, or set replay=True to use what is "
                f"in the cache. {self._answered} answers of this run are kept, the next run goes on from there"
            )
        return Reply(failure=f"{self._to.attempts} attempts failed, the last one: {trouble}")

    async def _send(self, request: Request) -> Reply:
        # the client's own method for raw requests: that for chats spends half a millisecond more on each, on types
        body = {"model": request.setup.model, "messages": request.messages, **self._body}
        response = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=body)
        try:
            answer = _Completion.model_validate_json(response.text)
        except ValidationError as error:
            raise _Garbled(f"no chat completion came back ({error.error_count()} faults in its form)") from None
        said = answer.choices[0]
        return Reply(
            said.message.content or "",
            said.finish_reason or "",
            answer.usage.prompt_tokens if answer.usage else 0,
            answer.usage.completion_tokens if answer.usage else 0,
        )

    def _passing(self, error: Exception) -> bool:
        """Whether another attempt may go through."""
        if isinstance(error, openai.APIStatusError):
            return error.status_code in _AGAIN or error.status_code >= 500
        return True

    def _stop_if_hopeless(self, error: Exception, trouble: str) -> None:
        """End the run if the first thing that comes back is something that every clip would get."""
        redirect = 300 <= error.status_code < 400
        if redirect or (error.status_code in _HOPELESS and not self._answered):
            what = "redirects to another address, which is not followed" if redirect else "refuses every request"
            raise EnrichError(
                f"the server of base_url {what} ({trouble}); check the address, "
                f"the model's name '{self._to.model}' and the key in ${self._to.key_variable}"
            ) from None

    def _wait(self, attempt: int, error: Exception, chance: random.Random) -> float:
        """Seconds until the next attempt: what the server asks for, else doubling, with half of it left to chance."""
        wait = self._to.first_wait * 2 ** (attempt - 1) * chance.uniform(0.5, 1.0)
        if isinstance(error, openai.APIStatusError):
            asked = retry_after(error.response.headers.get("retry-after", ""))
            wait = max(wait, asked) if asked is not None else wait
        return min(wait, self._to.longest_wait)

    def _explain(self, error: Exception) -> str:
        """An error in words, without the key and the address."""
        if isinstance(error, openai.APITimeoutError | TimeoutError):
            return f"no answer within {self._to.timeout:g} s"
        if isinstance(error, openai.APIStatusError):
            text = f"status {error.status_code}, {error.message}"
        elif isinstance(error, openai.APIConnectionError):
            text = f"the connection broke, {error.__cause__ or error}"
        else:
            text = str(error)
        text = text.replace(self._key, "***") if self._key else text
        return without_address(text, self._to.base_url)[:200]


def _key(variable: str) -> str:
    """The server's key; one that cannot be sent is refused here, as the HTTP library would write it into its error."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise EnrichError(
            f"${variable} holds signs that no key has, such as a line break or a curly quote; set it anew"
        )
    return key


class _Garbled(Exception):
    """A response that is no chat completion."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @field_validator("*", mode="before")
    @classmethod
    def _counted(cls, count: object) -> int:
        """What is no count is 0: an answer is not lost for it."""
        return count if isinstance(count, int) and 0 <= count < 2**53 else 0


class _Completion(BaseModel):
    """The part of a chat completion that is used."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def retry_after(header: str, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms; None if it says nothing."""
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", header):
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - (now or datetime.now(UTC))).total_seconds(), 0.0)
