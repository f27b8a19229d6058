"""A model by name before it is trained, and what is left of it afterwards: all that predicting needs."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ecmf_lib import classical, experts, fusion, fusion_registry
from ecmf_lib.experts import log_softmax
from ecmf_lib.members import log_probabilities, reproducible
from ecmf_lib.samples import DataError, FusionData, stretches
from ecmf_lib.scaling import learnable, standardise, turned

#: Most clips that are predicted at once: what lies between the layers then stays near the processor.
AT_ONCE = 1024
#: What `kind` of a :class:`ModelSpec` may be, beside those of :func:`ecmf_lib.fusion_registry.register`.
KINDS = (*fusion.FUSIONS, *classical.KINDS)


@dataclass(frozen=True)
class ModelSpec:
    """A model by name.

    Attributes
    ----------
    name : str
        As it appears in tables.
    kind : str
        One of :data:`KINDS`, or the name of a registered fusion.
    streams : tuple of str or None
        None: all of the data.
    options : dict
        Options of the fusion's class and of :class:`ecmf_lib.members.Recipe` (for the logistic kinds: ``C``). A list or
        tuple means: choose among these on the inner folds.
    trials : int
        Settings that the search tries in each outer fold (:mod:`ecmf_lib.tune`); 0 or 1: none.
    epochs : int
        Most epochs, where the model has a recipe of its own; 0: as all others.
    """

    name: str
    kind: str
    streams: tuple[str, ...] | None = None
    options: dict = field(default_factory=dict)
    trials: int = 0
    epochs: int = 0

    def __post_init__(self):
        if not known_kind(self.kind):
            raise ValueError(f"model '{self.name}': no kind {self.kind!r}; choose from {', '.join(KINDS)}")

    def __reduce__(self):
        # A fusion of one's own travels with the spec: a worker process has not seen the cell that registered it.
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return _arrived, (type(self), values, fusion_registry.own(self.kind))

    @property
    def neural(self) -> bool:
        """Whether it is a network."""
        return self.kind in fusion.FUSIONS

    def candidates(self) -> list[dict]:
        """Every combination of the options that are given as lists."""
        choices = {key: list(v) if isinstance(v, list | tuple) else [v] for key, v in self.options.items()}
        return [dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())]

    def about(self) -> dict:
        """Everything that its results depend on, JSON-able."""
        return asdict(self) | ({"code": fusion_registry.code_of(self.kind)} if fusion_registry.own(self.kind) else {})


def known_kind(kind: str) -> bool:
    """Whether there is such a kind of model: of this package, or registered."""
    return kind in KINDS or fusion_registry.own(kind) is not None


def _arrived(cls: type[ModelSpec], values: dict, own: type[fusion.Fusion] | None) -> ModelSpec:
    if own is not None:
        fusion_registry.adopt(values["kind"], own)
    return cls(**values)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model: everything that predicting needs, and nothing of the training clips.

    Attributes
    ----------
    name, kind : str
    classes : tuple of str
    dims : dict of str to int
    options : dict
        Options of the fusion as chosen.
    arrays : dict of str to array
        ``mean.<stream>``, ``gain.<stream>`` (1/deviation, 0 for a constant column), where they were learned
        ``rotate.<stream>`` [dim, components] and ``expert.<stream>`` [classes, dim + 1], and ``param.<name>``.
    temperature : float
        Divides the class scores; set on inner folds.
    trees : object or None
        Of gradient boosting only.
    chosen : dict
        Options that were chosen on inner folds: by the search, or among those that the spec lists.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    dims: dict[str, int]
    options: dict
    arrays: dict[str, np.ndarray]
    temperature: float = 1.0
    trees: object = None
    chosen: dict = field(default_factory=dict)

    def predict(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64 [n, classes] and stream weights float64 [n, streams] (NaN where the model has none)."""
        if len(data) > AT_ONCE:
            parts = [self.predict(data.select(rows)) for rows in stretches(len(data), AT_ONCE)]
            chances, weights = zip(*parts, strict=True)
            return np.concatenate(chances), np.concatenate(weights)
        data = learnable(self._fitting(data), self.arrays)
        scores, weights = self._scores(data if self.kind in fusion.FUSIONS else data.clip_level())
        return np.exp(log_softmax(scores / self.temperature)), weights

    def _scores(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        params = {key[6:]: value for key, value in self.arrays.items() if key.startswith("param.")}
        x = standardise(data, self.arrays)
        no_weights = np.full((len(data), len(self.dims)), np.nan)
        if self.kind not in fusion.FUSIONS:
            known, there = classical.Classical(params, model=self.trees), data.mask()
            kind = "majority" if "prior" in params else self.kind  # boosting of a single class is that
            scores = classical.class_scores(kind, known, turned(x, self.arrays), there)
            return scores, there / np.maximum(there.sum(1, keepdims=True), 1) if kind == "late-logistic" else no_weights
        with reproducible(0):
            stack = {key: torch.from_numpy(value) for key, value in params.items()}
            z = turned(x, self.arrays)
            model = fusion.build(self.kind, {n: v.shape[-1] for n, v in z.items()}, len(self.classes), **self.options)
            opinions = experts.opinions_of(x, data.present, self.arrays) if model.takes_opinions else None
            chances, weights = log_probabilities(model, stack, z, data.mask(), opinions)
        weights = weights.mean(0)
        return log_softmax(chances.mean(0)), weights if weights.shape[1] else no_weights

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into `folder` (made if need be).

        Raises
        ------
        ValueError
            For gradient boosting: its trees would need pickle.
        """
        if self.trees is not None:
            raise ValueError(f"model '{self.name}' cannot be kept: its trees would need pickle; fit it again")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: np.ascontiguousarray(value) for key, value in self.arrays.items()}, folder / "model.safetensors"
        )
        about = {key: value for key, value in vars(self).items() if key not in ("arrays", "trees")}
        (folder / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read what :meth:`save` wrote; predictions are identical."""
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        about["classes"] = tuple(about["classes"])
        return cls(arrays=load_file(folder / "model.safetensors"), **about)

    def _fitting(self, data: FusionData) -> FusionData:
        data = data.only(self.dims)
        for name, dim in self.dims.items():
            if data.dims[name] != dim:
                raise DataError(
                    f"stream '{name}': clip {data.ids[0]!r} has {data.dims[name]} features, model '{self.name}' "
                    f"expects {dim}; extract with the encoder it was trained on"
                )
        return data
