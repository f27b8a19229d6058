"""A language model in process, from a folder on this machine; for who has a GPU and does not want a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from ecmf_lib.encoders.integrity import Unfit, check_weights, read_json, shards_of
from ecmf_lib.encoders.weights import file_digests, joint_digest
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_prompt import EnrichError, check_number, load_prompt
from ecmf_lib.enrich_talk import Reply, Request, Setup, Talk

SORTED_AT_ONCE = 32  # batches whose talks are sorted by length, so that little is spent on padding


@dataclass(frozen=True)
class LocalEnricher:
    """A causal language model of transformers, greedy decoding, in batches.

    Parameters
    ----------
    folder : path
        Checkpoint: ``config.json``, tokenizer, weights in safetensors. Nothing is downloaded and no code of the
        checkpoint runs.
    prompt : str
        Version of the prompt, a file of ``ecmf_lib/prompts``.
    max_tokens : int
        Of one answer.
    batch : int
        Clips generated for at once.
    device : str
        "auto" is a GPU if there is one. On a GPU weights are used in the type they are stored in, on a CPU in float32.
    replay : bool
        Load no model: every answer has to be in the cache. The folder is needed, to know which model it is.

    Raises
    ------
    EnrichError
        If the folder holds no such checkpoint, or one that would run code.

    Notes
    -----
    Padding to other lengths changes sums in the last digit, so that a batch of another size can once in a while decide
    a tie the other way. What was answered once is in the cache.
    """

    folder: Path | str
    prompt: str = "v1"
    max_tokens: int = 800
    batch: int = 8
    device: str = "auto"
    replay: bool = False

    def __post_init__(self) -> None:
        load_prompt(self.prompt, "en")
        check_number("max_tokens", self.max_tokens, int)
        check_number("batch", self.batch, int)
        _ = self.setup  # reads the checkpoint's files, so that what is wrong with them is said now

    @cached_property
    def setup(self) -> Setup:
        """What answers depend on; the model is known by its content, wherever it lies."""
        decoding = {"greedy": True, "max_tokens": self.max_tokens}
        return Setup(f"{Path(self.folder).name}@{_digest(Path(self.folder))}", json.dumps(decoding), self.prompt)

    def converse(self, talks: Iterable[Talk], replies: Replies, done: Callable[[Talk], None]) -> None:
        """Bring talks to their end, a batch at a time; `done` hears of each."""
        model = LocalModel(self)
        talks = iter(talks)
        while some := list(islice(talks, self.batch * SORTED_AT_ONCE)):
            while some:
                for batch in batches_of(some, self.batch):
                    model.answer(batch, replies)
                for talk in some:
                    if not talk.request:
                        done(talk)
                some = [talk for talk in some if talk.request]


class LocalModel:
    """A loaded model."""

    def __init__(self, enricher: LocalEnricher):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        on_gpu = enricher.device == "auto" and torch.cuda.is_available()
        self._device = "cuda" if on_gpu else "cpu" if enricher.device == "auto" else enricher.device
        safe = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(enricher.folder, padding_side="left", **safe)
            self._model = AutoModelForCausalLM.from_pretrained(
                enricher.folder, use_safetensors=True, dtype="float32" if self._device == "cpu" else "auto", **safe
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EnrichError(f"{enricher.folder}: transformers cannot load it as a language model ({error})") from None
        self._model.to(self._device).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)
        self._max_tokens = enricher.max_tokens
        self._room = getattr(self._model.config, "max_position_embeddings", None) or 10**9

    def answer(self, talks: list[Talk], replies: Replies) -> None:
        """Give each talk the reply to its request, from the cache if it is there."""
        known = replies.get([talk.request.key for talk in talks])
        asked = [talk for talk in talks if talk.request.key not in known or known[talk.request.key].failure]
        new = self.generate([talk.request for talk in asked]) if asked else []
        replies.put([(talk.request, talk.cues.id, reply) for talk, reply in zip(asked, new, strict=True)])
        known |= {talk.request.key: reply for talk, reply in zip(asked, new, strict=True)}
        for talk in talks:
            talk.hear(known[talk.request.key])

    def generate(self, requests: list[Request]) -> list[Reply]:
        """The model's replies to one batch."""
        import torch

        prompts = [self._tokenizer(self._chat(request), add_special_tokens=False)["input_ids"] for request in requests]
        fit = [at for at, ids in enumerate(prompts) if len(ids) + self._max_tokens <= self._room]
        failure = f"too long for the model, which has room for {self._room} tokens with the answer's {self._max_tokens}"
        replies = [Reply(tokens_in=len(ids), failure=failure) for ids in prompts]
        if not fit:
            return replies
        given = self._tokenizer.pad({"input_ids": [prompts[at] for at in fit]}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                max_new_tokens=self._max_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        for at, ids in zip(fit, made[:, given["input_ids"].shape[1] :].tolist(), strict=True):
            replies[at] = self._reply(ids, len(prompts[at]))
        return replies

    def _reply(self, ids: list[int], tokens_in: int) -> Reply:
        ends = self._model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        length = next((at for at, token in enumerate(ids) if token in ends), len(ids))
        finish = "stop" if length < len(ids) else "length"
        return Reply(self._tokenizer.decode(ids[:length], skip_special_tokens=True), finish, tokens_in, length)

    def _chat(self, request: Request) -> str:
        """The chat in the model's own template; where it has none, the messages one after the other."""
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            return "\n\n".join(message["content"] for message in request.messages) + "\n\n"
        try:
            return self._tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        except TemplateError:  # a template that knows no system message
            system, first, *rest = request.messages
            joined = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
            return self._tokenizer.apply_chat_template([joined, *rest], tokenize=False, add_generation_prompt=True)


def batches_of(talks: list[Talk], size: int) -> Iterator[list[Talk]]:
    """Talks of about the same length together, the shortest first, so that little of a batch is padding."""
    ordered = sorted(talks, key=lambda talk: sum(len(message["content"]) for message in talk.request.messages))
    return (ordered[at : at + size] for at in range(0, len(ordered), size))


def _digest(folder: Path) -> str:
    """16 hex digits of the files that make up a checkpoint, all of them checked.

    Raises
    ------
    EnrichError
        Naming the file that is missing, damaged or unsafe.
    """
    try:
        weights = _weights(folder)
        for file in weights:
            check_weights(file)
        read_json(folder / "config.json")
        others = {*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.model"), *folder.glob("*.txt")}
        files = [*weights, *sorted(others)]
        return joint_digest(list(zip([file.name for file in files], file_digests(files), strict=True)))
    except (Unfit, OSError) as problem:
        raise EnrichError(
            f"{folder}: {problem}; expected a transformers checkpoint: config.json, a tokenizer and model.safetensors"
        ) from None


def _weights(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    return shards_of(index)
