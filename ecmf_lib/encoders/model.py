"""Pre-trained models as encoders: prepared clip by clip in worker processes, run in batches where the device is.

A family of models (timm, transformers' vision, speech and text models, ONNX) subclasses :class:`ModelEncoder` and says
how a clip becomes inputs and how a batch of inputs becomes *steps*: a vector for each frame, 20 ms of sound, or token.
Which layers the steps come from and how they are pooled over time is the same question for all of them, and a setting.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecmf_lib.encoders.base import ClipInputs, Encoder, EncoderError
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.weights import Weights, find

if TYPE_CHECKING:
    import torch

#: Ways from steps [t, width] to the features of a clip. "none" keeps the steps: frame-level features.
POOLINGS = ("mean", "mean+std", "attention", "first", "last", "none")

#: Softmax temperature of the pooling "attention", on cosine similarities; our choice.
ATTENTION_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Prepared:
    """What the model gets to see of one clip.

    Attributes
    ----------
    items : tuple of ndarray
        Model inputs without a batch axis: images uint8 [height, width, 3], sound float32 [samples], tokens int64 [n].
    keep : tuple of (int, int) or None
        For each item, the range of its steps that counts: where items overlap, each step is kept once. None: all.
    """

    items: tuple[np.ndarray, ...]
    keep: tuple[tuple[int, int], ...] | None = None


class ModelEncoder(Encoder):
    """A pre-trained model behind the interface of all encoders.

    :meth:`encode` does one clip alone, as every encoder can. For a corpus, workers call :meth:`prepare` and the process
    with the device calls :meth:`run` for many clips at once; both ways give the same features (to rounding).

    Parameters
    ----------
    card : Card
        Name, stream, source and default settings.
    root : path, optional
        The user's weights folder; a sub-folder (or file) named like the encoder takes the place of the hub's.
    **settings
        Overrides of ``card.settings``: ``layers``, ``pooling``, ``precision`` and what the family adds.

    Raises
    ------
    EncoderError
        For an unknown setting or value. Nothing is loaded yet; :meth:`ready` does that.
    """

    #: Every family has these; a card may set other defaults and add the family's own settings.
    common: ClassVar = {"layers": "last", "pooling": "mean", "precision": "half"}
    #: Allowed values of a setting, where there is a closed list.
    choices: ClassVar = {"pooling": POOLINGS, "precision": ("half", "full")}
    #: Most (padded) cost of a batch, in the unit of :meth:`cost`; small enough for a laptop.
    batch_cost: ClassVar[int] = 32
    version = 1

    def __init__(self, card: Card, root: Path | str | None = None, **settings):
        self.card, self.root = card, None if root is None else Path(root)
        self.name, self.stream, self.licence = card.name, card.stream, card.licence
        self.weights, self.uses = card.source, frozenset({card.uses})
        self.defaults = {**self.common, **card.settings}
        super().__init__(**settings)
        for key, allowed in self.choices.items():
            if self.settings.get(key, allowed[0]) not in allowed:
                known = ", ".join(map(str, allowed))
                raise EncoderError(f"encoder '{self.name}': {key} = {self.settings[key]!r}; choose from {known}")
        self._found: Weights | None = None
        self._model = self._device = None

    # -------------------------------------------------------------------------------------------- what it is

    @property
    def level(self) -> str:
        """The level is "frame" where steps are kept (``pooling=none``), else "clip"."""
        return "frame" if self.settings["pooling"] == "none" else "clip"

    @property
    def dim(self) -> int:
        return self.width * (2 if self.settings["pooling"] == "mean+std" else 1)

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers in one step, read from the checkpoint's configuration."""

    @property
    def checkpoint(self) -> Weights:
        """Where the weights lie on this machine.

        Raises
        ------
        WeightsError
            If they do not, or are damaged or unsafe; the message says how to get them.
        """
        if self._found is None:
            self._found = find(self.card, self.root)
        return self._found

    @property
    def folder(self) -> Path:
        """Folder (or file) of the checkpoint."""
        return self.checkpoint.path

    @property
    def fingerprint(self) -> str:
        parts = {
            "name": self.name,
            "version": self.version,
            "settings": self.settings,
            "weights": self.checkpoint.digest,
            # without the build ("+cu130"): what a GPU machine stored is found on a laptop
            "libraries": {module: import_module(module).__version__.partition("+")[0] for module in self.libraries},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    # -------------------------------------------------------------------------------------------- the work

    def prepare(self, clip: ClipInputs) -> Prepared:
        """The model's inputs of one clip. Runs in worker processes and loads no weights.

        Raises
        ------
        MissingStream
            The clip has nothing for this stream.
        """
        return self._prepare(clip)

    def ready(self, device: str = "auto") -> None:
        """Load the model, so that what is wrong with it shows before any clip is touched.

        Parameters
        ----------
        device : "auto", "cpu", "cuda", "cuda:1", "mps"
            "auto" is a GPU where there is one.

        Raises
        ------
        WeightsError
            As :attr:`checkpoint`, and for what only loading shows.
        """
        device = choose_device(device)
        if self._model is None or self._device != device:
            self._model, self._device = self._load(device, self._dtype(device)), device

    def release(self) -> None:
        """Let go of the model and its memory; the next use loads it again."""
        self._model = self._device = None

    def run(self, clips: Sequence[Prepared]) -> list[np.ndarray | Exception]:
        """Features of many clips; the items of all of them share batches, sorted by length.

        Returns
        -------
        list of float32 [dim] or [t, dim], or Exception
            One a clip. An exception stands for a clip that this model cannot do, the others are not touched by it.
        """
        self.ready(self._device or "auto")
        items = [item for clip in clips for item in clip.items]
        outputs: list = [None] * len(items)
        # longest first: what does not fit into memory shows at once
        order = sorted(range(len(items)), key=lambda place: -self.cost(items[place]))
        for batch in _packed(order, [self.cost(item) for item in items], self.batch_cost):
            for place, output in zip(batch, self._forward_or_split([items[i] for i in batch]), strict=True):
                outputs[place] = output
        features, start = [], 0
        for clip in clips:
            mine, start = outputs[start : start + len(clip.items)], start + len(clip.items)
            wrong = next((output for output in mine if isinstance(output, Exception)), None)
            features.append(wrong or self._in_range(self._pooled(clip, mine)))
        return features

    def _in_range(self, features: np.ndarray) -> np.ndarray | EncoderError:
        """Features, unless they are out of the range of half precision, which ends at 65 504."""
        import torch

        if self._dtype(self._device) == torch.float32 or np.isfinite(features).all():
            return features
        problem = "numbers beyond half precision on this device; set precision = 'full'"
        return EncoderError(f"encoder '{self.name}': {problem}")

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        (features,) = self.run([self.prepare(clip)])
        if isinstance(features, Exception):
            raise features
        return features

    # ------------------------------------------------------------------------------------------- what a family does

    @abstractmethod
    def _prepare(self, clip: ClipInputs) -> Prepared: ...

    @abstractmethod
    def _load(self, device: str, dtype: torch.dtype):
        """The model in evaluation mode on the device; raises WeightsError."""

    @abstractmethod
    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        """One batch through ``self._model`` on ``self._device``: float32 [steps, width] for each item."""

    def cost(self, item: np.ndarray) -> int:
        """What an item takes of a batch: 1 for an image, the length for sound and text."""
        return 1

    # -------------------------------------------------------------------------------------------- shared

    def _pooled(self, clip: Prepared, outputs: list[np.ndarray]) -> np.ndarray:
        keep = clip.keep or [(0, len(output)) for output in outputs]
        steps = np.concatenate([output[a:b] for output, (a, b) in zip(outputs, keep, strict=True)])
        return pool(steps, self.settings["pooling"])

    def _dtype(self, device: str) -> torch.dtype:
        import torch

        # on a CPU half precision is slower and no smaller where it matters
        return torch.float16 if self.settings["precision"] == "half" and device.startswith("cuda") else torch.float32

    def _forward_or_split(self, items: list[np.ndarray]) -> list[np.ndarray | Exception]:
        """A batch; in halves where the device's memory is too small for it."""
        import torch

        try:
            with torch.inference_mode():
                return self._forward(items)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(items) == 1:
                return [EncoderError(f"encoder '{self.name}': one input does not fit into GPU memory ({error})")]
            half = len(items) // 2
            return self._forward_or_split(items[:half]) + self._forward_or_split(items[half:])

    def __getstate__(self) -> dict:
        # workers prepare, they do not run: the model stays where the device is
        return self.__dict__ | {"_model": None, "_device": None}

    def __repr__(self) -> str:
        changed = {key: value for key, value in self.settings.items() if value != self.defaults[key]}
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in changed.items())})"


def pool(steps: np.ndarray, how: str) -> np.ndarray:
    """Steps of a clip to its features.

    Parameters
    ----------
    steps : float32 [t, width]
    how : str
        One of :data:`POOLINGS`. "attention" has no trained part: softmax over the cosine similarity of each step to the
        mean of all, so that steps unlike the rest of the clip count less (our choice). "first" is for models that
        gather the meaning in their first token, "last" for those that do in the last.

    Returns
    -------
    float32 [width], [2 · width] for "mean+std", [t, width] for "none"
    """
    steps = np.asarray(steps, np.float32)
    exact = steps.astype(np.float64)  # sums over thousands of steps
    if how == "none":
        return steps
    if how in ("first", "last"):
        return steps[0 if how == "first" else -1]
    mean = exact.mean(0)
    if how == "mean":
        return mean.astype(np.float32)
    if how == "mean+std":
        return np.concatenate([mean, exact.std(0)]).astype(np.float32)
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(mean)
    likeness = (exact @ mean) / np.maximum(lengths, 1e-12) / ATTENTION_TEMPERATURE
    weights = np.exp(likeness - likeness.max())
    return (weights @ exact / weights.sum()).astype(np.float32)


def choose_device(name: str) -> str:
    """The device that a setting names; "auto" is a GPU where there is one.

    Raises
    ------
    EncoderError
        For a device that this machine or this build of torch does not have.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        known = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise EncoderError(f"device '{name}' is not there; this machine has {known}, or say 'auto'")
    return name


def _packed(order: Sequence[int], costs: Sequence[int], most: int) -> list[list[int]]:
    """Places, longest first, in batches: the longest × their number stays within `most`, one item always fits."""
    batches: list[list[int]] = []
    for place in order:
        if not batches or costs[batches[-1][0]] * (len(batches[-1]) + 1) > most:
            batches.append([])
        batches[-1].append(place)
    return batches
