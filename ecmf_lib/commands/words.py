"""From the words of a command line to the parameters that the notebooks have, too."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from ecmf_lib.config import NOTEBOOKS, REPO, Settings, SettingsError, did_you_mean


def assignments(pairs: list[str] | None) -> dict:
    """``["seeds=5", "clip=7", "streams=face,audio"]`` → ``{"seeds": 5, "clip": "7", "streams": ["face", "audio"]}``.

    A text stays one, whatever it looks like. In a list, a name with a comma in it stands in double quotes.
    """
    fields = {name: field for model in NOTEBOOKS.values() for name, field in model.model_fields.items()}
    given = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign:
            raise SettingsError(f"--set {pair}: expected NAME=VALUE, for example --set seeds=5")
        if name in ("corpus", "output", "profile", "encoders", "weights", "llm"):
            raise SettingsError(f"--set {pair}: the {name} is given to the command itself, see ecmf report --help")
        if name not in fields:
            meant = did_you_mean(name, fields)
            raise SettingsError(f"--set {pair}: {name}: unknown{meant}; the notebooks take {', '.join(sorted(fields))}")
        kind = fields[name].annotation
        if kind in (list[str], list[float]):
            listed = _cells(pair, value)
            entries = [entry.strip() for entry in listed if entry.strip()]
            given[name] = entries if kind == list[str] else [_number(entry) for entry in entries]
        elif kind is float:
            given[name] = _number(value)
        else:
            given[name] = int(value) if kind is int and re.fullmatch("-?[0-9]{1,20}", value) else value
    return given


def swaps(options: list[str] | None) -> dict[str, dict]:
    """``["audio=wavlm-large:layers=last4,chunk=10"]`` → ``{"audio": {"name": …, "layers": "last4", "chunk": 10}}``."""
    given = {}
    for option in options or []:
        stream, sign, rest = option.partition("=")
        name, _, listed = rest.partition(":")
        pairs = [pair.partition("=") for pair in listed.split(",") if listed]
        if not sign or not all(key and mark for key, mark, _ in pairs):
            raise SettingsError(f"--encoder {option}: expected STREAM=NAME or STREAM=NAME:SETTING=VALUE,SETTING=VALUE")
        given[stream] = ({"name": name} if name else {}) | {key: _number(value) for key, _, value in pairs}
    return given


def language_model(pairs: list[str] | None) -> dict:
    """``["base_url=http://127.0.0.1/v1", "allow_remote=true"]`` → ``{"base_url": …, "allow_remote": True}``."""
    given = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise SettingsError(f"--llm {name}: expected NAME=VALUE, for example --llm model=qwen3")
        text = relative(Path(value)) if name == "folder" else value
        given[name] = {"true": True, "false": False}.get(text, text if name in ("model", "folder") else _number(text))
    return given


def _cells(pair: str, value: str) -> list[str]:
    try:
        return next(csv.reader([value], skipinitialspace=True), [])
    except csv.Error as error:
        raise SettingsError(f"--set {pair[:200]}: no list ({error}); put commas between the entries") from None


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def parameters(
    spec: str,
    profile: str,
    encoder: list[str] | None,
    weights: str,
    llm: list[str] | None,
    settings: list[str] | None,
    workers: int = 0,
    **others,
) -> dict:
    """What the command line says, as notebook parameters; a model pack keeps its name, folders become relative.

    Parameters
    ----------
    **others
        Parameters that have an option of their own in one command; empty is not given.

    Raises
    ------
    SettingsError
        For words that are no parameter, or if an option and ``--set`` say different things.
    """
    chosen = {"profile": profile, "encoders": swaps(encoder), "llm": language_model(llm)}
    assigned = assignments(settings)
    for name, value in {"workers": workers, **others}.items():
        if not value:
            continue
        if assigned.get(name, value) != value:
            raise SettingsError(f"{name}: --set says one thing and the command's option another; give one of them")
        assigned[name] = value
    given = {"corpus": spec} | chosen | assigned
    if weights:
        given["weights"] = weights_of(weights)
    return given


def shares(given: dict, *models: type[Settings]) -> list[dict]:
    """Each model's share of the parameters, for a command that works by the settings of several notebooks.

    Raises
    ------
    SettingsError
        For a parameter of notebooks that are none of these: it would count for nothing.
    """
    known = set().union(*(model.model_fields for model in models))
    for name in given:
        if name not in known:
            raise SettingsError(f"{name}: counts for nothing in this command; it takes {', '.join(sorted(known))}")
    return [{name: value for name, value in given.items() if name in model.model_fields} for model in models]


def weights_of(weights: str) -> str:
    """The option as settings hold it: a pack keeps its name, a folder is relative to the checkout."""
    from ecmf_lib.faces import INSIGHTFACE_PACKS

    return relative(Path(weights)) if weights and weights not in INSIGHTFACE_PACKS else weights


def label_files(sources: list[str] | None, review: Path | None) -> dict:
    """Files about labels as the parameters ``sources`` and ``review`` hold them."""
    return {"sources": [_source(entry) for entry in sources or []], "review": relative(review) if review else ""}


def _source(entry: str) -> str:
    stream, sign, path = entry.partition("=")
    if not sign or Path(entry).is_file():  # a path with such a sign in it
        return relative(Path(entry))
    return f"{stream}={relative(Path(path))}"


def relative(path: Path) -> str:
    """A path as parameters hold it: relative to the checkout, so that executed notebooks name no machine's folders."""
    try:
        return Path(os.path.relpath(path.expanduser().resolve(), REPO)).as_posix()
    except (RuntimeError, ValueError) as error:  # links in a circle, ~ of somebody unknown, a NUL
        raise SettingsError(f"{path}: no such file or folder ({error}); give another path") from None


def relative_spec(spec: str) -> str:
    """The same for a corpus: ``demo``, a path, or ``adapter:path``."""
    from ecmf_lib.adapters import ADAPTERS

    adapter, colon, folder = spec.partition(":")
    if spec == "demo":
        return spec
    if colon and adapter in ADAPTERS:
        return f"{adapter}:{relative(Path(folder))}"
    return relative(Path(spec))
