"""Fusions of one's own beside :data:`ecmf_lib.fusion.FUSIONS`, from a notebook cell or a script."""

from __future__ import annotations

import hashlib
import re
from types import CodeType, FunctionType

import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ecmf_lib import classical, fusion
from ecmf_lib.fusion_base import Dropout, Fusion, FusionOutput

_OWN: dict[str, type[Fusion]] = {}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}")


def register(name: str, kind: type[Fusion]) -> None:
    """Make a fusion known under `name`, as the ``kind`` of a :class:`ecmf_lib.fitted.ModelSpec`.

    It is tried once on made-up clips, so that what could not be trained is found out here. To register the same name
    again replaces it, as running a cell twice does. Worker processes are handed the class with the work.

    Parameters
    ----------
    name : str
        Small letters, digits, ``-``, ``_`` and ``.``.
    kind : subclass of Fusion
        ``kind(dims, n_classes)`` has to make one without further options.

    Raises
    ------
    ValueError
        If the name is taken by a fusion of this package, or the class does not keep what
        :class:`ecmf_lib.fusion_base.Fusion` promises; the message says what.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"fusion {name!r}: a name has small letters, digits, '-', '_' and '.', 50 at most")
    if name in classical.KINDS or (name in fusion.FUSIONS and name not in _OWN):
        raise ValueError(f"fusion '{name}': ecmf_lib has one of that name; choose another")
    if not (isinstance(kind, type) and issubclass(kind, Fusion)):
        raise ValueError(f"fusion '{name}': {kind!r} is no subclass of ecmf_lib.fusion_base.Fusion")
    try:
        problem = _problem(kind)
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"fusion '{name}' fails on clips of two streams: {type(error).__name__}: {error}") from error
    if problem:
        raise ValueError(f"fusion '{name}': {problem}")
    adopt(name, kind)


def adopt(name: str, kind: type[Fusion]) -> None:
    """Register what another process has tried."""
    _OWN[name] = fusion.FUSIONS[name] = kind


def own(name: str) -> type[Fusion] | None:
    """The class that was registered under `name`; None for a fusion of this package, or no fusion at all."""
    return _OWN.get(name)


def code_of(name: str) -> str:
    """16 hex digits of a registered class's own methods and constants, for the keys of stored results.

    A function outside of the class that it calls is not in them.
    """
    told = []
    for part in own(name).__mro__[: own(name).__mro__.index(Fusion)]:
        told += [part.__name__, *(f"{key}: {_told(value)}" for key, value in sorted(vars(part).items()))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _told(value: object) -> str:
    """Code and constants without what differs from run to run: addresses, file names, line numbers."""
    if isinstance(value, FunctionType):
        return repr([_told(value.__code__), _told(value.__defaults__), _told(value.__kwdefaults__)])
    if isinstance(value, CodeType):
        return repr([value.co_code.hex(), value.co_names, value.co_varnames, [_told(c) for c in value.co_consts]])
    if isinstance(value, dict):
        return repr({key: _told(entry) for key, entry in value.items()})
    if isinstance(value, tuple | list):
        return repr([_told(entry) for entry in value])
    return repr(value) if isinstance(value, str | bytes | int | float | None) else type(value).__name__


def _problem(kind: type[Fusion]) -> str:
    """What keeps a fusion from being trained, or from meaning what its numbers say; "" for nothing."""
    dims, generator = {"first": 3, "second": 4}, torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        models = [kind(dims, 2).eval() for _ in range(2)]
    model = models[0]
    if any(isinstance(part, _DropoutNd) and not isinstance(part, Dropout) for part in model.modules()):
        return "use ecmf_lib.fusion_base.Dropout in place of torch's, so that several models can be trained at once"
    if any(isinstance(part, _NormBase) for part in model.modules()) or any(True for _ in model.buffers()):
        return "batch normalisation and other buffers cannot be trained for several models at once; use nn.LayerNorm"
    streams = {name: torch.randn(5, dim, generator=generator) for name, dim in dims.items()}
    present = torch.tensor([[True, True], [True, True], [True, False], [False, True], [False, False]])
    more = (torch.full((5, 2, 2), -0.7),) if model.takes_opinions else ()
    with torch.no_grad():
        said = model(streams, present, *more)
        if not isinstance(said, FusionOutput) or tuple(said.logits.shape) != (5, 2):
            return "forward has to give a FusionOutput with logits [batch, classes] (see without_weights)"
        if not all(torch.isfinite(part).all() for part in said):
            return "NaN or infinity for a clip without any stream, or with one missing; mask after the projection"
        if said.weights.shape[1] not in (0, 2) or (said.weights.numel() and said.weights[~present].any()):
            return "weights are [batch, streams], 0 where a stream is missing; or [batch, 0]"
        other = {name: torch.where(present[:, [i]], x, x + 9) for i, (name, x) in enumerate(streams.items())}
        if not torch.allclose(model(other, present, *more).logits, said.logits, atol=1e-5):
            return "the numbers of a missing stream reach its scores; multiply its token by present[:, i]"
        longer = {name: x[:, None].expand(-1, 3, -1) for name, x in streams.items()}
        try:
            at_length = model(longer, present, *more).logits
        except Exception:  # whatever torch raises for arrays that do not fit
            at_length = said.logits[:0]
        if at_length.shape != said.logits.shape or not torch.isfinite(at_length).all():
            return "a stream may come as [batch, steps, dim]: begin with clip_level(x), or pool the steps"
        stacked, buffers = stack_module_state(models)
        vmap(lambda p, b: functional_call(model, (p, b), (streams, present, *more)))(stacked, buffers)
    return ""
