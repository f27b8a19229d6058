"""Download weights ahead of time, for machines that then work without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ecmf_lib.config import PROFILES
from ecmf_lib.encoders import EncoderError, encoders
from ecmf_lib.encoders.cards import ASR_CARDS, CARDS, Card
from ecmf_lib.encoders.hub import HubError, HubFile, explain, listing
from ecmf_lib.encoders.weights import WeightsError, find, insightface_folder, repository
from ecmf_lib.shards import FileDigests


def cards_of(profile: str | None, options: Sequence[str] = ()) -> list[Card]:
    """The pre-trained encoders of a profile, and those asked for by name (speech recognisers too).

    Parameters
    ----------
    profile : str or None
        None: only those asked for.
    options : sequence of str
        ``NAME``, or as for the other commands ``STREAM=NAME[:SETTING=VALUE,…]`` in place of the profile's.

    Raises
    ------
    EncoderError
        For an unknown profile or name; says what there is.
    """
    if profile is not None and profile not in PROFILES:
        raise EncoderError(f"no profile '{profile}'; choose from {', '.join(PROFILES)}")
    chosen, known = dict(PROFILES[profile] if profile else {}), CARDS | ASR_CARDS
    for option in options:
        stream, sign, rest = option.partition("=")
        name = (rest if sign else option).partition(":")[0]
        if name or not sign:  # "audio=:layers=last4" only changes settings
            chosen[stream] = name
    without_weights = set(encoders()["name"]) - set(known)
    unknown = [name for name in chosen.values() if name not in known and name not in without_weights]
    if unknown:
        raise EncoderError(f"no weights are published for '{unknown[0]}'; choose from {', '.join(sorted(known))}")
    return [known[name] for name in dict.fromkeys(chosen.values()) if name in known]


def fetch(cards: Sequence[Card], root: Path | str | None = None, *, say: Callable[[str], None] = print) -> list[str]:
    """Download what is not on this machine yet.

    Parameters
    ----------
    cards : sequence of Card
    root : path, optional
        Weights folder; what lies there is not downloaded.
    say : callable
        Called with a line for each encoder: what comes, how much, under which licence.

    Returns
    -------
    list of str
        One sentence for each encoder that could not be had; empty if all is well. What has been downloaded stays.
    """
    problems = []
    if not cards:
        say("nothing to download: these encoders need no weights")
    for card in cards:
        try:
            _fetch(card, root, say)
        except (HubError, WeightsError) as error:
            problems.append(str(error))
    return problems


def _fetch(card: Card, root: Path | str | None, say: Callable[[str], None]) -> None:
    try:
        say(f"{card.name}: is there ({find(card, root).path})")
        return
    except WeightsError as error:
        if error.state == "unsafe" or (error.state == "damaged" and error.origin == "your folder") or not card.source:
            raise
        if error.state == "damaged":
            say(f"{error}; fetching it again")
            _remove(error.path)
    files = listing(card)
    total = sum(file.size for file in files.values())
    place = _room_for(total, card)
    say(f"{card.name}: {card.source}, {total / 1e6:,.0f} MB, licence {card.licence}, to {place}")
    if card.source.startswith("insightface:"):
        _unpack(card)
    else:
        _download(card, files)
    find(card, root)


def _download(card: Card, files: dict[str, HubFile]) -> None:
    """Files of a repository into the hub's cache, each compared with the checksum that the hub gives."""
    from huggingface_hub import snapshot_download

    try:
        name, _ = repository(card)
        folder = Path(snapshot_download(name, revision=card.revision, allow_patterns=sorted(files)))
    except Exception as error:  # the network stack raises whatever it likes
        if "Consistency check failed" in str(error):
            raise HubError(f"encoder '{card.name}': {card.source}: the download broke off; fetch it again") from None
        raise explain(error, card) from None
    digests = FileDigests(Path())
    for name, file in files.items():
        if file.sha256 and digests.of(folder / name) != file.sha256:
            _remove(folder / name)
            raise HubError(
                f"encoder '{card.name}': {name} of {card.source} arrived with the wrong checksum and was deleted; "
                f"fetch it again, and if that does not help, without the proxy or mirror in between"
            )


def _unpack(card: Card) -> None:
    """A model pack into insightface's folder, by insightface itself."""
    from insightface.utils.storage import download

    pack = card.source.removeprefix("insightface:").partition("/")[0]
    folder = insightface_folder() / pack
    try:
        download("models", pack, force=True)
    except Exception as error:  # as above; what came is no use
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # insightface takes an empty folder for a finished download
        raise HubError(
            f"encoder '{card.name}': insightface's pack '{pack}' cannot be had ({type(error).__name__}); fetch it again"
        ) from None
    finally:
        folder.with_suffix(".zip").unlink(missing_ok=True)  # else the pack lies there twice


def _room_for(size: int, card: Card) -> Path:
    """The folder that a download goes to, if it has room."""
    from huggingface_hub import constants

    place = insightface_folder() if card.source.startswith("insightface:") else Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise HubError(
            f"encoder '{card.name}': needs {size / 1e6:,.0f} MB in {place}, {free / 1e6:,.0f} MB are free; "
            f"free some space, or set HF_HOME to a larger disk"
        )
    return place


def _remove(path: Path) -> None:
    """A damaged file: the content, and the name that leads to it."""
    if path.is_file():
        path.resolve().unlink()
    path.unlink(missing_ok=True)
