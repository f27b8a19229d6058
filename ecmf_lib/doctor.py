"""Can this machine run a profile now? What is there, what is missing, and how to get it; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ecmf_lib.config import REPO, cache_dir
from ecmf_lib.encoders import Encoder, EncoderError, profile
from ecmf_lib.encoders.cards import ASR_CARDS, Card
from ecmf_lib.encoders.hub import Status, status
from ecmf_lib.faces import DetectorError, get_detector
from ecmf_lib.workers import usable_cores

#: MB that the program itself takes, torch and one worker included; measured, rounded up.
PROGRAM_MB = 1500

# of the container that this runs in, in bytes: control groups of version 2 and 1
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_WIDTH = 100  # columns
_ROW = "{:<11} {:<22} {:>5} {:>11} {:>9}  {:<17} {}"


@dataclass
class Diagnosis:
    """What was found.

    Attributes
    ----------
    lines : list of str
        For people, at most 100 columns wide where words allow it.
    problems : list of str
        What keeps the profile from running now, each with its mend; empty if nothing does.
    """

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def examine(
    name: str = "light",
    swaps: Mapping[str, str | Mapping] | None = None,
    *,
    weights: Path | str | None = None,
    asr: str = "",
    online: bool = True,
) -> Diagnosis:
    """Look at the machine and at every encoder of a profile.

    Parameters
    ----------
    name, swaps
        As for :func:`ecmf_lib.encoders.profile`.
    weights : path, optional
        Weights folder, or an insightface pack.
    asr : str
        Speech recogniser that is to be used, if any.
    online : bool
        Ask the hub about what is not on this machine (three seconds at most).

    Raises
    ------
    EncoderError
        For an unknown profile, encoder or setting.
    """
    chosen = profile(name, swaps, weights=weights)
    if asr and asr not in ASR_CARDS:
        raise EncoderError(f"no speech recogniser '{asr}'; choose from {', '.join(ASR_CARDS)}")
    found = Diagnosis()
    _machine(found)
    _packages(found)
    if any("faces" in encoder.uses for encoder in chosen.values()):
        _detector(found, weights)
    cards = {stream: encoder.card for stream, encoder in chosen.items() if hasattr(encoder, "card")}
    if asr:
        cards["transcripts"] = ASR_CARDS[asr]
    with ThreadPoolExecutor(max_workers=8) as pool:
        states = dict(
            zip(cards, pool.map(lambda card: status(card, weights, online=online), cards.values()), strict=True)
        )
    found.lines += ["", f"profile {name}: all its encoders are our choice, the paper names none"]
    found.lines.append(_ROW.format("stream", "encoder", "dim", "MB to load", "MB in RAM", "choice", "weights"))
    for stream, encoder in chosen.items():
        found.lines += _encoder(stream, encoder, states.get(stream))
    if asr:
        found.lines += _card("transcripts", cards["transcripts"], 0, states["transcripts"])
    _what_is_missing(found, name, cards, states)
    _room(found, cards, states)
    return found


# ------------------------------------------------------------------------------------------------ the machine


def memory_mb() -> int | None:
    """MB of memory that this process may use: of the machine, or of the container it is in; None if unknown."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _LIMITS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits) // 10**6 if limits else None


def machine() -> str:
    """Cores that this process may use and the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{usable_cores()} cores, {name}"


def devices() -> list[str]:
    """What models can run on, the first is taken; torch is only asked (3 s) where there can be a GPU."""
    drivers = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
    if sys.platform == "linux" and not any(os.path.exists(driver) for driver in drivers):
        return ["cpu"]
    import torch

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        found.append(f"cuda:{number} ({about.name}, {about.total_memory / 1e9:.0f} GB)")
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def _machine(found: Diagnosis) -> None:
    memory = memory_mb()
    found.lines += [
        f"Python     {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        f"device     {', '.join(devices())}",
        f"memory     {f'{memory:,} MB' if memory else 'unknown'}",
    ]


def _packages(found: Diagnosis) -> None:
    pins, others, missing = _pins(), [], []
    for package, pinned in pins.items():
        try:
            there = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{package} {pinned}")
            continue
        if there.partition("+")[0] != pinned:  # torch 2.11.0+cu128 is a build of 2.11.0
            others.append(f"{package} {there} (pinned {pinned})")
    said = f"{len(pins) - len(others) - len(missing)} of {len(pins)} as pinned"
    if others:
        said += f"; others, so numbers can differ from the reports: {', '.join(others)}"
    found.lines += _wrapped("packages   ", said)
    if missing:
        found.problems.append(f"packages missing: {', '.join(missing)}; run 'make lab' or pip install -e .")


def _pins() -> dict[str, str]:
    """Package → version that the reports were made with."""
    about = REPO / "pyproject.toml"
    if about.is_file():
        lines = tomllib.loads(about.read_text("utf-8"))["project"]["dependencies"]
    else:
        lines = [line for line in importlib.metadata.requires("ecmf") or [] if "extra ==" not in line]
    found = (re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def _detector(found: Diagnosis, weights: Path | str | None) -> None:
    try:
        detector = get_detector("auto", weights or None)
    except DetectorError as error:
        found.lines.append("faces      no detector")
        found.problems.append(str(error))
    else:
        found.lines += _wrapped("faces      ", f"detector {detector.name}, {detector.licence}")


# ------------------------------------------------------------------------------------------------ encoders


def _encoder(stream: str, encoder: Encoder, state: Status | None) -> Iterator[str]:
    if state is None:
        yield _ROW.format(stream, encoder.name, encoder.dim, "-", "-", "ours", "none needed")
        yield from _wrapped("", encoder.licence)
    else:
        dim = encoder.card.width * (2 if encoder.settings["pooling"] == "mean+std" else 1)
        yield from _card(stream, encoder.card, dim, state)


def _card(stream: str, card: Card, dim: int, state: Status) -> Iterator[str]:
    load = card.download if card.source else "-"
    yield _ROW.format(stream, card.name, dim or "-", load, card.memory, card.choice, state.state)
    yield from _wrapped("", "; ".join(part for part in (card.source, card.licence, card.note) if part))
    if state.state != "to download":  # of which the last lines speak
        yield from _wrapped("", state.reason)


def _wrapped(head: str, text: str) -> list[str]:
    indent = " " * (len(head) or 12)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head or indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _what_is_missing(found: Diagnosis, name: str, cards: Mapping[str, Card], states: Mapping[str, Status]) -> None:
    to_load = {cards[stream].name for stream, state in states.items() if state.state == "to download"}
    if to_load:
        total = _download_mb(cards, states)
        which = " ".join(f"--encoder {card}" for card in sorted(to_load))
        found.problems.append(f"to download, {total:,} MB: ecmf fetch {which}")
    mends = {
        "unreachable": "check the network, or put the files in the weights folder",
        "damaged": "get them again",
        "not published": "put the files in the weights folder, or take another encoder",
    }
    for state, mend in mends.items():
        which = [cards[stream].name for stream, known in states.items() if known.state == state]
        if which:
            found.problems.append(f"{state}: {', '.join(which)}; {mend} (the table above says more)")


def _download_mb(cards: Mapping[str, Card], states: Mapping[str, Status]) -> int:
    """What is missing, each repository once."""
    sizes = {cards[stream].source: cards[stream].download for stream, s in states.items() if s.state == "to download"}
    return sum(sizes.values())


def _room(found: Diagnosis, cards: Mapping[str, Card], states: Mapping[str, Status]) -> None:
    """Is there memory for the models, and room on the disks?"""
    needed = PROGRAM_MB + sum(card.memory for card in cards.values())
    memory = memory_mb()
    if memory and needed > memory:
        found.problems.append(f"memory: about {needed:,} MB are needed, {memory:,} MB are there; take smaller encoders")
    places = {"features": (cache_dir(), 0)}
    if cards:
        from huggingface_hub import constants

        places["weights"] = (Path(constants.HF_HUB_CACHE), _download_mb(cards, states))
    for what, (place, size) in places.items():
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free // 10**6
        found.lines[3:3] = _wrapped("disk       ", f"{free:,} MB free for {what} ({place})")
        if free < size:
            found.problems.append(
                f"disk: {size:,} MB are needed in {place}, {free:,} MB are free; free some, or set HF_HOME"
            )
