"""Where the weights of a pre-trained encoder lie, whether they are whole, and whether they are safe to load.

Nothing here downloads or loads a model; everything is found out from the files themselves, before the first clip.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ecmf_lib.config import cache_dir
from ecmf_lib.encoders.base import EncoderError
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.integrity import Unfit, check_weights, read_json, shards_of
from ecmf_lib.shards import FileDigests

#: Families whose weights are one ONNX file; those of all others are a folder.
ONE_FILE = ("onnx-face", "insightface")

_TENSORS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "normalizer.json")


class Parts(NamedTuple):
    """What a checkpoint folder consists of, beside ``config.json``.

    Attributes
    ----------
    weights : tuple of str
        Names that the weights can have, in the order in which the library looks for them.
    groups : tuple of tuple of str
        At least one file of each group has to be there; all that are there count.
    extras : tuple of str
        Count if they are there.
    """

    weights: tuple[str, ...] = _TENSORS
    groups: tuple[tuple[str, ...], ...] = (_PROCESSOR,)
    extras: tuple[str, ...] = ()


#: Family → the files that its class reads. They make up the digest, and only they are downloaded.
PARTS = {
    # the order of timm.models._hub
    "timm": Parts(("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"), ()),
    "hf-image": Parts(),
    "hf-video": Parts(),
    "hf-speech": Parts(),
    "whisper": Parts(),
    "hf-text": Parts(groups=(_VOCABULARY,), extras=_TOKENIZER),
    "asr-whisper": Parts(groups=(_PROCESSOR, _VOCABULARY), extras=(*_TOKENIZER, "generation_config.json")),
}


class WeightsError(EncoderError):
    """Weights that are not there, not whole or not safe; the message names them and the mend.

    Attributes
    ----------
    state : str
        "missing", "damaged" or "unsafe".
    path : Path or None
        The file that is damaged or unsafe.
    origin : str
        Where it lies, as in :class:`Weights`.
    """

    def __init__(self, message: str, state: str = "missing", path: Path | None = None, origin: str = ""):
        super().__init__(message)
        self.state, self.path, self.origin = state, path, origin


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine.

    Attributes
    ----------
    path : Path
        Folder in the format of its library, or one ONNX file.
    digest : str
        sha256 over everything in it that changes features, 16 hex digits; the same wherever it lies.
    origin : str
        "your folder", "hub" or "insightface".
    commit : str
        Of the hub's repository; "" for others.
    """

    path: Path
    digest: str
    origin: str
    commit: str = ""

    @property
    def stand_in(self) -> bool:
        """Whether these are random weights of :mod:`ecmf_lib.encoders.stand_ins`, whose features mean nothing."""
        if self.path.is_file():
            with open(self.path, "rb") as file:
                file.seek(max(0, self.path.stat().st_size - 4096))
                return b"ecmf_stand_in" in file.read()  # metadata of an ONNX file comes last
        config = self.path / "config.json"
        return config.is_file() and bool(read_json(config).get("ecmf_stand_in"))


def find(card: Card, root: Path | str | None) -> Weights:
    """The checkpoint of a card: the user's own in `root`, else what has been downloaded.

    Parameters
    ----------
    card : Card
    root : path, optional
        Weights folder. A sub-folder ``<card.name>``, a file ``<card.name>.onnx`` or one that fits ``card.pattern``
        (the largest of them) goes before the hub's cache.

    Raises
    ------
    WeightsError
        If it is in neither place, or damaged, or can only be loaded by running foreign code.
    """
    own = _own(card, root)
    if own is not None:
        return _checked(card, own, "your folder", root)
    if card.source.startswith("insightface:"):
        pack, _, name = card.source.removeprefix("insightface:").partition("/")
        file = insightface_folder() / pack / name
        return _checked(card, file, "insightface", root) if file.is_file() else _missing(card, root)
    snapshot = _snapshot(card) if card.source else None
    return _checked(card, snapshot, "hub", root) if snapshot else _missing(card, root)


def insightface_folder() -> Path:
    """Where insightface keeps its model packs."""
    return Path("~/.insightface/models").expanduser()


def repository(card: Card) -> tuple[str, str]:
    """``owner/name`` of a card's repository on the hub, and the file in it ("" for a whole folder)."""
    owner, name, *file = card.source.split("/")
    return f"{owner}/{name}", "/".join(file)


def _own(card: Card, root: Path | str | None) -> Path | None:
    if not root:
        return None
    if not Path(root).is_dir():  # a slip of the pen must not end with other weights than were meant
        raise WeightsError(f"encoder '{card.name}': no weights folder {root}; check the path")
    for name in (card.name, f"{card.name}.onnx"):
        if (Path(root) / name).exists():
            return Path(root) / name
    fitting = [file for file in Path(root).glob(card.pattern) if file.is_file()] if card.pattern else []
    return max(fitting, key=lambda file: (file.stat().st_size, file.name), default=None)


def _snapshot(card: Card) -> Path | None:
    """Folder (or file) in the hub's cache; HF_HOME and HF_HUB_CACHE are respected."""
    from huggingface_hub import try_to_load_from_cache  # a fifth of a second

    name, file = repository(card)
    found = try_to_load_from_cache(name, file or "config.json", revision=card.revision)
    if not isinstance(found, str):
        return None
    return Path(found) if file else Path(found).parent


def _missing(card: Card, root: Path | str | None):
    folder = f"{root}/{card.name}" if root else f"<weights folder>/{card.name}"
    if not card.source:
        name = card.pattern or f"{card.name}.onnx"
        raise WeightsError(
            f"encoder '{card.name}': no {name} in {root or 'any weights folder (none is given)'}, and no hub has it; "
            f"put the file there and name the folder, or take another encoder for stream '{card.stream}'"
        )
    broken = " (a download broke off)" if _interrupted(card) else ""
    place = insightface_folder() if card.source.startswith("insightface:") else "the hub's cache"
    raise WeightsError(
        f"encoder '{card.name}': no weights on this machine{broken}; expected {card.source} in {place} or "
        f"{folder}. Get them with 'ecmf fetch --encoder {card.name}' ({card.download} MB, {card.licence}), "
        f"put them in that folder, or take another encoder for stream '{card.stream}'"
    )


def _interrupted(card: Card) -> bool:
    if card.source.startswith("insightface:"):
        return False
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository(card)[0].replace('/', '--')}" / "blobs"
    return any(blobs.glob("*.incomplete"))


def _checked(card: Card, path: Path, origin: str, root: Path | str | None) -> Weights:
    try:
        if card.family in ONE_FILE:
            path = _one_file(card, path)
            check_weights(path)
            files = {"model.onnx": path}  # what it is called does not matter
        else:
            files = {file.name: file for file in _folder(card, path)}
        digest = _digest(card, files, origin)
    except Unfit as problem:
        if origin == "hub" and not problem.path.exists() and not problem.path.is_symlink():
            _missing(card, root)  # fetched for another encoder that reads fewer files, or broken off between two files
        again = f"'ecmf fetch --encoder {card.name}'" if origin != "your folder" else "copy it again"
        mend = f"get it again: {again}" if problem.safe else "take a checkpoint in safetensors, or convert it to that"
        raise WeightsError(
            f"encoder '{card.name}': {problem.path} {problem.reason}; {mend}, "
            f"or take another encoder for stream '{card.stream}'",
            "damaged" if problem.safe else "unsafe",
            problem.path,
            origin,
        ) from None
    return Weights(path, digest, origin, path.name if origin == "hub" and path.is_dir() else "")


def _one_file(card: Card, path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.onnx"))
    if len(files) != 1:
        raise Unfit(path, f"holds {len(files)} ONNX files, expected one")
    return files[0]


def _folder(card: Card, folder: Path) -> Iterator[Path]:
    """Every file of a checkpoint that counts, checked."""
    parts = PARTS[card.family]
    if not folder.is_dir():
        raise Unfit(folder, "is no folder; expected one with config.json and weights")
    for group in (("config.json",), *parts.groups):
        if not any((folder / name).is_file() for name in group):
            raise Unfit(folder / group[0], "is not there" + "".join(f", nor {name}" for name in group[1:2]))
    wanted = ("config.json", *(name for group in parts.groups for name in group), *parts.extras)
    for name in sorted(set(wanted)):
        if (folder / name).is_file():
            if name.endswith(".json"):
                _refuse_code(folder / name)
            yield folder / name
    kind = "architecture" if card.family == "timm" else "model_type"
    if kind not in read_json(folder / "config.json"):
        raise Unfit(folder / "config.json", f"has no '{kind}': not a checkpoint of this family ({card.family})")
    first = next((folder / name for name in parts.weights if (folder / name).is_file()), None)
    if first is None:
        raise Unfit(folder / parts.weights[0], _instead(folder), safe=not _pickles(folder))
    for name in ("pytorch_model.pth", "model.pth") if first.name.startswith("open_clip") else ():
        if (folder / name).exists():  # timm's order
            raise Unfit(folder / name, f"would be read in place of {first.name}: a pickle", safe=False)
    yield first
    shards = shards_of(first) if first.suffix == ".json" else []
    for file in shards or [first]:
        if not file.is_file():
            raise Unfit(file, f"is not there, but {first.name} names it")
        check_weights(file)
    yield from shards


def _instead(folder: Path) -> str:
    pickles = _pickles(folder)
    return f"is not there, only {', '.join(pickles[:3])}: pickles, which run code" if pickles else "is not there"


def _pickles(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*") if file.suffix in (".pt", ".pth", ".pkl", ".ckpt"))


def _refuse_code(file: Path) -> None:
    content = read_json(file)
    if "auto_map" in content:
        raise Unfit(file, "asks for code from its repository (auto_map)", safe=False)
    if content.get("transformers_weights"):  # transformers would read them, and nobody has looked at them
        raise Unfit(file, f"names weights of its own ({content['transformers_weights']!r}, transformers_weights)")


def _digest(card: Card, files: dict[str, Path], origin: str) -> str:
    names = sorted(files)
    parts = list(zip(names, file_digests([files[name] for name in names]), strict=True))
    for name, content in parts:
        file = files[name]
        expected = _promised(file) if origin == "hub" else card.sha256 if origin == "insightface" else ""
        if expected and expected not in (content, _as_git_counts(file) if len(expected) == 40 else ""):
            raise Unfit(file, f"has the wrong checksum: {content[:12]}…, expected {expected[:12]}…")
    return joint_digest(parts)


def file_digests(files: Sequence[Path]) -> list[str]:
    """sha256 of each file of a checkpoint; remembered, as they are large.

    Raises
    ------
    Unfit
        For a file that cannot be read.
    """
    memory = FileDigests(cache_dir() / "cache" / "weights.jsonl")
    found = [memory.of(file.resolve()) for file in files]
    try:
        memory.save()
    except OSError:
        pass  # then the next call reads the files again
    for file, content in zip(files, found, strict=True):
        if len(content) != 64:
            raise Unfit(file, f"is {content}")
    return found


def joint_digest(parts: Sequence[tuple[str, str]]) -> str:
    """16 hex digits of files by name and content; the same wherever they lie."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _promised(file: Path) -> str:
    """Checksum of a file in the hub's cache: the name of its blob, sha256 for large files, git's for small ones."""
    name = file.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name) else ""  # without links it has its own name


def _as_git_counts(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
