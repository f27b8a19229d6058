"""What the hub has of a pre-trained encoder, and what it means when it does not answer."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple

from ecmf_lib.encoders.base import EncoderError
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.weights import ONE_FILE, PARTS, WeightsError, find, repository


class HubError(EncoderError):
    """Weights that cannot be had from the hub; the message says why and the mend.

    Attributes
    ----------
    state : str
        "unreachable" or "not published".
    """

    def __init__(self, message: str, state: str = "unreachable"):
        super().__init__(message)
        self.state = state


class Status(NamedTuple):
    """How it stands with an encoder's weights.

    Attributes
    ----------
    state : str
        "present", "to download", "unreachable", "damaged" or "not published".
    reason : str
        Where they lie, or why not and the mend.
    """

    state: str
    reason: str


class HubFile(NamedTuple):
    """One file of a repository: bytes, and its sha256 where the hub gives one, else ""."""

    size: int
    sha256: str


def status(card: Card, root, *, online: bool = True, timeout: float = 3.0) -> Status:
    """How it stands with an encoder's weights; nothing is downloaded.

    Parameters
    ----------
    card : Card
    root : path or None
        As for :func:`ecmf_lib.encoders.weights.find`.
    online : bool
        Ask the hub about what is not on this machine.
    timeout : float
        Seconds to wait for the hub.
    """
    try:
        found = find(card, root)
        random = "RANDOM weights, a stand-in: its features mean nothing; " if found.stand_in else ""
        return Status("present", f"{random}{found.origin}: {found.path}")
    except WeightsError as error:
        if error.state != "missing":
            return Status("damaged", str(error))
        if not card.source:
            return Status("not published", str(error))
        missing = Status("to download", str(error))
    if online:
        try:
            listing(card, timeout=timeout)
        except HubError as error:
            return Status(error.state, str(error))
    return missing


def listing(card: Card, *, timeout: float = 10.0) -> dict[str, HubFile]:
    """The files of a card's repository that have to be downloaded.

    Raises
    ------
    HubError
        If the hub cannot be reached, or does not have it, or not to everyone.
    """
    if card.source.startswith("insightface:"):
        return _release(card, timeout)
    from huggingface_hub import HfApi

    name, _ = repository(card)
    try:
        info = HfApi().model_info(name, revision=card.revision, files_metadata=True, timeout=timeout)
    except Exception as error:  # the network stack raises whatever it likes
        raise explain(error, card) from None
    files = {
        file.rfilename: HubFile(file.size or 0, file.lfs.sha256 if file.lfs else "") for file in info.siblings or []
    }
    return {name: files[name] for name in wanted(card, files)}


def wanted(card: Card, names: Iterable[str]) -> list[str]:
    """Which files of a repository a card needs: one kind of weights (safetensors before others), nothing twice.

    Raises
    ------
    HubError
        If the repository has no weights that can be loaded without running foreign code.
    """
    names = set(names)
    if card.family in ONE_FILE:
        chosen = [repository(card)[1]]
    else:
        parts = PARTS[card.family]
        # a loader takes the first name of its list that is there: so only one of them may come
        by_safety = sorted(parts.weights, key=lambda name: ".bin" in name)
        first = next((name for name in by_safety if name in names), "model.safetensors")
        kind = first.rpartition(".index.json")[0] or first
        stem, _, ending = kind.rpartition(".")
        shards = [n for n in names if n.startswith(f"{stem}-0") and n.endswith(f".{ending}")] if kind != first else []
        small = ("config.json", *(name for group in parts.groups for name in group), *parts.extras)
        chosen = ["config.json", first, *shards, *(name for name in small if name in names)]
    lacking = [name for name in chosen if name not in names]
    if lacking:
        raise HubError(
            f"encoder '{card.name}': {card.source} ({card.revision}) has no {lacking[0]}; "
            f"take another encoder for stream '{card.stream}'",
            "not published",
        )
    return sorted(set(chosen))


def explain(error: Exception, card: Card) -> HubError:
    """An error of the hub's client as one sentence with the mend."""
    from huggingface_hub import constants, errors

    what = f"encoder '{card.name}': {card.source}"
    other = f"or take another encoder for stream '{card.stream}'"
    causes, cause = [], error
    while cause is not None:
        causes, cause = [*causes, cause], cause.__cause__ or cause.__context__
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return HubError(f"{what}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, {other}")
    if any(getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return HubError(f"{what}: the disk of {constants.HF_HUB_CACHE} is full; free some space, or set HF_HOME")
    if isinstance(error, errors.GatedRepoError) or _status(error) == 403:
        return HubError(f"{what} is given out on request only: ask on its page, run 'hf auth login', {other}")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{what} has no revision '{card.revision}'; {other}", "not published")
    if isinstance(error, errors.RepositoryNotFoundError | errors.RemoteEntryNotFoundError) or _status(error) == 401:
        return HubError(
            f"{what} is not on {constants.ENDPOINT}, or not for everyone: check the name, "
            f"run 'hf auth login' if it is private, {other}",
            "not published",
        )
    answer = f"answered {_status(error)}" if _status(error) else f"cannot be reached ({type(causes[-1]).__name__})"
    return HubError(
        f"{what}: {constants.ENDPOINT} {answer}; check the network (or HF_ENDPOINT and the proxy) and try again, "
        f"or put the files in <weights folder>/{card.name}"
    )


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _release(card: Card, timeout: float) -> dict[str, HubFile]:
    """An insightface pack: one archive without a published checksum."""
    from urllib.request import Request, urlopen

    from insightface.utils.storage import model_zoo_download_url

    pack = card.source.removeprefix("insightface:").partition("/")[0]
    try:
        with urlopen(Request(model_zoo_download_url(f"{pack}.zip"), method="HEAD"), timeout=timeout) as answer:
            return {f"{pack}.zip": HubFile(int(answer.headers.get("Content-Length") or 0), "")}
    except (OSError, ValueError) as error:
        raise HubError(
            f"encoder '{card.name}': insightface's model zoo cannot be reached ({type(error).__name__}); try again "
            f"later, or put {card.source.rpartition('/')[2]} in a weights folder as {card.name}.onnx"
        ) from None
