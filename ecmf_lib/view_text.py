"""Views as text, read with distrust: somebody may have sent them."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ecmf_lib.bounded import parse_json

LONGEST = 2**16  # characters of a view as text
MOST, NAME = 500, 500  # entries of a list, characters of a name
_LISTS = ("models", "streams", "cell")


class ViewError(ValueError):
    """A view that cannot be read, or that asks for what is not stored; the message says what there is."""


def parsed(text: str) -> dict:
    """What a view as JSON, or as a query with or without what stands before its "?", says: name → value, unchecked.

    Raises
    ------
    ViewError
        The text is neither, is too long, or says a thing twice.
    """
    text = text.strip()
    if len(text) > LONGEST:
        raise ViewError(f"view: {len(text):,} characters, where a view has {LONGEST:,} at most")
    return _json(text) if text.startswith("{") else _query(text.rpartition("?")[2])


def is_name(value: object) -> bool:
    """Whether a value can be the name of a model, stream, class or run."""
    return isinstance(value, str) and len(value) <= NAME


def _json(text: str) -> dict:
    try:
        given = parse_json(text)
    except ValueError as error:
        raise ViewError(f"view: not JSON ({error})") from None
    return given  # a text that begins with a brace and is JSON is an object


def _query(text: str) -> dict:
    try:
        pairs = parse_qsl(text, strict_parsing=True, max_num_fields=4 * MOST, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise ViewError(
            f"view: {text[:80]!r} is neither JSON nor a query such as run=demo&model=ECMF ({error})"
        ) from None
    given: dict = {}
    for name, value in pairs:
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise ViewError(f"view: {name[:40]} stands there twice")
        else:
            given[name] = value
    return given
