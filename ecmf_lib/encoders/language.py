"""Text models: RoBERTa-class encoders, embedding models and decoder LLMs' hidden states, through transformers.

One class does all three, because they differ in two settings only: ``pooling`` is "mean" for encoders, "first" for
embedding models that gather the meaning in their first token (BGE-M3: Chen et al., ACL Findings 2024) and "last" for
those that do in the last (Qwen3-Embedding: Zhang et al., arXiv 2506.05176). Embeddings are not scaled to unit length.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.checkpoint import config_value, load_model, load_part, read_json, unfit
from ecmf_lib.encoders.model import ModelEncoder, Prepared, pool
from ecmf_lib.encoders.text import READS, text_of
from ecmf_lib.encoders.weights import WeightsError
from ecmf_lib.encoders.windows import windows

if TYPE_CHECKING:
    import tokenizers
    import torch

# Their positions are counted from the number of the padding token on, which takes that many from the table.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")


class Language(ModelEncoder):
    """Hidden states of a text model, one vector a token.

    What is read is data: nothing that stands in it becomes a control token, also if it reads "[CLS]" or "<|im_end|>".
    The model's own tokens around the text are put there as it expects them; they count in the pooling, because that is
    how the authors of the embedding models pool.

    A text longer than the model takes goes through in overlapping windows, each with those tokens around it. Each
    token counts once; with "first" and "last", the windows' vectors are averaged.

    Settings: ``reads``, "transcript" (stream "text") or "enrichment" (stream "enrichment"); ``prefix``, put before the
    text where a model was trained with one ("query: "); ``window`` and ``overlap``, in tokens; ``layers``, "last", what
    the model gives, or "last4", the sum of it and the three hidden layers before.
    """

    common: ClassVar = {**ModelEncoder.common, "reads": "transcript", "prefix": "", "window": 512, "overlap": 64}
    choices: ClassVar = {**ModelEncoder.choices, "layers": ("last", "last4"), "reads": tuple(READS)}
    libraries = ("torch", "transformers", "tokenizers")

    def __init__(self, card, root=None, **settings):
        super().__init__(card, root, **settings)
        self.stream = READS[self.settings["reads"]]
        self._tokenizer: tokenizers.Tokenizer | None = None
        window, overlap = self.settings["window"], self.settings["overlap"]
        if window < 16 or not 0 <= overlap <= window // 2:
            expected = "a window of at least 16 tokens and at most half of it as overlap"
            raise EncoderError(f"encoder '{self.name}': window = {window}, overlap = {overlap}; expected {expected}")

    @property
    def width(self) -> int:
        return config_value(self._config, "hidden_size", self.folder, self.name)

    @cached_property
    def _config(self) -> dict:
        return read_json(self.folder / "config.json", self.name)

    @property
    def batch_cost(self) -> int:
        """Tokens in a batch."""
        return 4096 if self._device in (None, "cpu") else 65_536

    def cost(self, item: np.ndarray) -> int:
        return len(item)

    # -------------------------------------------------------------------------------------------- text to tokens

    def _prepare(self, clip: ClipInputs) -> Prepared:
        ids = self._tokens(self.settings["prefix"] + text_of(clip, self.settings["reads"]))
        before, after = self._around
        size = self._longest - len(before) - len(after)
        chunks = windows(len(ids), size, min(self.settings["overlap"], size // 2))
        items = [np.array([*before, *ids[chunk.start : chunk.stop], *after], np.int64) for chunk in chunks]
        keep = [[len(before) + end for end in chunk.keep] for chunk in chunks]
        keep[0][0], keep[-1][1] = 0, len(items[-1])  # the tokens around the text count once too
        return Prepared(tuple(items), tuple((first, last) for first, last in keep))

    @property
    def _longest(self) -> int:
        """Most tokens that go through the model at once."""
        most = self._config.get("max_position_embeddings") or self.settings["window"]
        if self._config.get("model_type") in _OFFSET_POSITIONS:
            most -= self._config.get("pad_token_id", 1) + 1
        return min(most, self.settings["window"])

    def _tokens(self, text: str) -> list[int]:
        """Ids of a text, by the tokenizer's own steps one by one: together they would first look for control tokens."""
        tokenizer = self._fast_tokenizer()
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        pieces = [text]
        if tokenizer.pre_tokenizer is not None:
            pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        pieces = [part for piece in pieces for part in self._inside_control.split(piece)]
        ids = [token.id for piece in pieces for token in tokenizer.model.tokenize(piece)]
        if not ids:
            raise MissingStream(f"no tokens in the {self.settings['reads']}")
        return ids

    @cached_property
    def _inside_control(self) -> re.Pattern:
        """The place behind the first letter of a control token: SentencePiece vocabularies have "<s>" for a word."""
        added = [token.content for token in self._fast_tokenizer().get_added_tokens_decoder().values()]
        places = [f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in added if len(text) > 1]
        return re.compile("|".join(places) or "(?!)")

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Ids that the model expects before and after a text."""
        encoding = self._fast_tokenizer().encode("a")
        own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]

    def _fast_tokenizer(self) -> tokenizers.Tokenizer:
        if self._tokenizer is None:
            loaded = load_part("AutoTokenizer", self.folder, self.name)
            self._tokenizer = getattr(loaded, "backend_tokenizer", None)
            if self._tokenizer is None:
                raise unfit(self.name, self.folder, "no fast tokenizer (tokenizer.json)")
            self._tokenizer.no_truncation()  # some checkpoints are saved with it
            self._tokenizer.no_padding()
        return self._tokenizer

    def __getstate__(self) -> dict:
        # Workers get the tokenizer ready made: to load it, transformers would bring torch into each of them.
        if self._found is not None:
            self._fast_tokenizer()
        return super().__getstate__()

    # -------------------------------------------------------------------------------------------- the model

    def _load(self, device: str, dtype: torch.dtype):
        if self._config.get("is_encoder_decoder"):
            what = "a model of an encoder and a decoder; expected one of them, take another checkpoint"
            raise WeightsError(f"encoder '{self.name}': {self.folder / 'config.json'}: {what}")
        model = load_model("AutoModel", self.folder, self.name, device=device, dtype=dtype)
        model.config.use_cache = False  # nothing is generated
        return model

    def _dtype(self, device: str) -> torch.dtype:
        import torch

        dtype = super()._dtype(device)
        trained = self._config.get("dtype", self._config.get("torch_dtype"))
        # what was trained in bfloat16 can leave the range of float16
        return torch.bfloat16 if dtype == torch.float16 and trained == "bfloat16" else dtype

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        padding = self._config.get("pad_token_id") or 0
        ids = pad_sequence([torch.from_numpy(item) for item in items], batch_first=True, padding_value=padding)
        lengths = torch.tensor([len(item) for item in items])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        inputs = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        if self.settings["layers"] == "last4":
            layers = self._model(**inputs, output_hidden_states=True).hidden_states[-4:]
        else:
            layers = [self._model(**inputs).last_hidden_state]
        steps = sum(layer.float() for layer in layers).cpu().numpy()
        return [of_item[: len(item)] for of_item, item in zip(steps, items, strict=True)]

    def _pooled(self, clip: Prepared, outputs: list[np.ndarray]) -> np.ndarray:
        if self.settings["pooling"] not in ("first", "last"):
            return super()._pooled(clip, outputs)
        return pool(np.stack([pool(output, self.settings["pooling"]) for output in outputs]), "mean")
