"""Whether a member of a bundle is what a model of ours can be, found out before it is used.

Digests show that a bundle was changed by accident. Somebody who makes a bundle on purpose can compute them, so what a
member says of itself is held against its own arrays: sizes before anything is allocated, then one clip of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ecmf_lib import fusion
from ecmf_lib.fitted import Fitted, known_kind
from ecmf_lib.samples import FusionData

_LARGEST = 2**20  # features of a stream
_OPTION = 2**16  # whole number that an option of ours can be


def member_problem(model: Fitted) -> str:
    """What is wrong with a member that was read from a file; empty if it can predict.

    Parameters
    ----------
    model : Fitted
        Of any content.
    """
    if wrong := [name for name, good in _FIELDS.items() if not good(getattr(model, name))]:
        return f"{', '.join(wrong)}: not what a model says there"
    if not known_kind(model.kind):
        return f"no kind {model.kind[:50]!r}; a fusion of your own: register it first (ecmf_lib.fusion_registry)"
    for name, array in model.arrays.items():
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            return f"array '{name[:50]}' holds numbers that are none, or infinite"
    for stream, dim in model.dims.items():
        for name in (f"mean.{stream}", f"gain.{stream}"):
            if name not in model.arrays or model.arrays[name].shape != (dim,):
                return f"array '{name[:50]}' missing, or of another length than {dim}"
    try:
        if model.kind in fusion.FUSIONS and (problem := _misfit(model)):
            return problem
        return _trial(model)
    except Exception as error:  # torch and numpy raise many kinds for what does not fit together
        return f"it cannot predict ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"


def _misfit(model: Fitted) -> str:
    """Whether its network, built without memory, has other parameters than there are arrays."""
    dims = {name: model.arrays.get(f"rotate.{name}", np.zeros((1, dim))).shape[-1] for name, dim in model.dims.items()}
    with torch.device("meta"):
        network = fusion.build(model.kind, dims, len(model.classes), **model.options)
    expected = {f"param.{name}": tuple(weight.shape) for name, weight in network.named_parameters()}
    found = {name: array.shape[1:] for name, array in model.arrays.items() if name.startswith("param.")}
    members = {len(array) for name, array in model.arrays.items() if name in found and array.ndim}
    return "" if expected == found and len(members) == 1 else "its arrays are not those of its kind and options"


def _trial(model: Fitted) -> str:
    streams = {name: np.zeros((1, dim), np.float32) for name, dim in model.dims.items()}
    there = {name: np.ones(1, bool) for name in streams}
    chances, weights = model.predict(FusionData(["trial"], streams, there, np.zeros(1, int), [""], model.classes))
    good = chances.shape == (1, len(model.classes)) and weights.shape == (1, len(streams))
    return "" if good and np.isfinite(chances).all() else "it does not give a probability for each class"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _is_option(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= 100 and all(isinstance(entry, str) for entry in value)
    if isinstance(value, int | float):
        return abs(value) <= _OPTION
    return value is None or isinstance(value, str)


def _is_dims(value: object) -> bool:
    dims = isinstance(value, Mapping) and 0 < len(value) <= 100
    return dims and all(_is_text(name) and type(dim) is int and 0 < dim <= _LARGEST for name, dim in value.items())


#: Field of a :class:`Fitted` → whether it can be that.
_FIELDS = {
    "name": _is_text,
    "kind": _is_text,
    "classes": lambda value: isinstance(value, tuple) and 0 < len(value) <= 1000 and all(map(_is_text, value)),
    "dims": _is_dims,
    "options": lambda value: isinstance(value, dict) and all(map(_is_option, value.values())),
    "temperature": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < np.inf,
    "trees": lambda value: value is None,
    "chosen": lambda value: isinstance(value, dict),
}
