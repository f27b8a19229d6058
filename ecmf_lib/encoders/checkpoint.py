"""Checkpoints in transformers' format: read them, and say in one sentence what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ecmf_lib.encoders import integrity
from ecmf_lib.encoders.weights import WeightsError

if TYPE_CHECKING:
    import torch

# Parts that a checkpoint of another task leaves out and that no feature passes through.
_UNUSED = ("pooler.", "masked_spec_embed")


def unfit(encoder: str, path: Path, what: str) -> WeightsError:
    """The error for a file or folder of a checkpoint that cannot be used."""
    mend = f"get it again with 'ecmf fetch --encoder {encoder}', or mend the folder that takes its place"
    return WeightsError(f"encoder '{encoder}': {path}: {what}; {mend}", "damaged", path)


def read_json(path: Path, encoder: str) -> dict:
    """One of the small files of a checkpoint; raises WeightsError if it is not there or no JSON object."""
    try:
        return integrity.read_json(path)
    except (integrity.Unfit, OSError) as problem:
        raise unfit(encoder, path, str(problem)) from None


def config_value(config: dict, key: str, folder: Path, encoder: str) -> int:
    """A size from a checkpoint's configuration; raises WeightsError where there is none."""
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise unfit(encoder, folder / "config.json", f"no usable '{key}' ({value!r})")
    return value


def load_part(kind: str, folder: Path, encoder: str):
    """A tokenizer or feature extractor: ``transformers.<kind>.from_pretrained``, from this folder alone.

    Raises
    ------
    WeightsError
        If its files are missing or damaged.
    """
    import transformers

    try:
        with _quiet():
            return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever it is: these files cannot be used
        raise unfit(encoder, folder, f"no usable {kind} ({first_line(error)})") from None


def load_model(kind: str, folder: Path, encoder: str, *, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """``transformers.<kind>.from_pretrained`` in evaluation mode, with every tensor from the checkpoint.

    transformers fills what a checkpoint lacks with random numbers and a warning; here that is an error. Files in
    PyTorch's own format are read as tensors only: nothing in them is executed.

    Raises
    ------
    WeightsError
        If the checkpoint is missing, damaged, of another model, or needs code of its own.
    """
    import transformers

    files = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".bin"))
    here = ", ".join(files) or "no *.safetensors"
    try:
        with _quiet():
            model, found = getattr(transformers, kind).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                dtype=dtype,
                output_loading_info=True,
            )
    except Exception as error:  # as above
        raise unfit(encoder, folder, f"{here}: not a whole checkpoint for {kind} ({first_line(error)})") from None
    lacking = sorted(key for key in found["missing_keys"] if not key.removeprefix("model.").startswith(_UNUSED))
    if lacking:
        raise unfit(encoder, folder, f"{here}: {len(lacking)} of the model's tensors are missing, e.g. {lacking[0]}")
    return model.eval().to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and reports of loading: what matters of them becomes an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """Kind and first line of an error: libraries write whole pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
