"""What a language model is asked: a prompt file of ``ecmf_lib/prompts``, and one clip as a JSON object.

A transcript is written by people who can write anything, instructions to the model among it. It cannot break out of
its place: the message that holds it is one JSON object and nothing else, in which every sign that chat templates or
Markdown are made of (``<|im_end|>``, ``[INST]``, code fences) is written as ``\\uXXXX``. No clip id goes into it: the
ids of many corpora hold the label.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecmf_lib.bounded import read_bytes
from ecmf_lib.cues import Cues

PROMPTS = Path(__file__).with_name("prompts")

LONGEST_TRANSCRIPT = 4000  # characters; film speech has some 15 a second, so that nothing but a mistake is cut
LONGEST_PHRASE = 500  # characters of a cue, a speaker's name or an earlier utterance
_LARGEST_PROMPT = 2**20  # bytes of a file
MOST_PHRASES = 20  # cues of one kind
MOST_CONTEXT = 10  # utterances before this one, the latest

_MARKS = re.compile(r"[<>|\[\]{}`]")
#: The same of an earlier answer, whose JSON stays readable: a transcript may have talked the model into writing them.
_TURNS = re.compile(r"[<>|]|\[(?=/?[A-Z]+\])")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


class EnrichError(ValueError):
    """Something that stops an enrichment and that only the user can mend; the message says how."""


def check_number(name: str, value: object, kind: type) -> None:
    """EnrichError unless `value` is a number above 0 of this kind."""
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
        raise EnrichError(f"{name} = {value!r}: expected a {'whole ' if kind is int else ''}number above 0")


@dataclass(frozen=True)
class Prompt:
    """One version of the prompt in one language.

    Attributes
    ----------
    name : str
        Such as "v1.en".
    language : {"en", "zh"}
        Of the sentences in the answer.
    instructions, repair : str
        Texts of the file; the repair has a place ``{problem}``.
    digest : str
        sha256 of the whole file, part of every key of the cache.
    """

    name: str
    language: str
    instructions: str
    repair: str
    digest: str

    def messages(self, data: str, *, answer: str | None = None, problem: str = "") -> list[dict[str, str]]:
        """The chat that is sent.

        Parameters
        ----------
        data : str
            The clip, see :func:`as_data`.
        answer : str, optional
            An answer that could not be used, to have it repaired.
        problem : str
            What is wrong with it.
        """
        chat = [{"role": "system", "content": self.instructions}, {"role": "user", "content": data}]
        if answer is None:
            return chat
        # templates refuse an empty turn, and a long one is not worth its tokens: it is nonsense anyway
        said = {"role": "assistant", "content": _escaped(answer[:LONGEST_TRANSCRIPT].strip(), _TURNS) or "{}"}
        repair = self.repair.replace("{problem}", _escaped(problem, _TURNS))
        return [*chat, said, {"role": "user", "content": repair}]


@lru_cache(maxsize=16)
def load_prompt(version: str, language: str) -> Prompt:
    """Read a prompt file.

    Raises
    ------
    EnrichError
        If there is none of this version; the message names those that there are.
    """
    path = PROMPTS / f"{version}.{language}.md"
    known = sorted({file.name.split(".")[0] for file in PROMPTS.glob("*.md")})
    if version not in known or not path.is_file():
        raise EnrichError(f"no prompt '{version}' for language '{language}'; choose from {', '.join(known)}")
    try:
        text = read_bytes(path, _LARGEST_PROMPT).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no UTF-8 text"
        raise EnrichError(f"{path}: cannot be read ({why}); restore the file, or name another prompt") from None
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    named = {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    if named.keys() != {"Instructions", "Repair"} or "{problem}" not in named["Repair"]:
        raise EnrichError(f"{path}: expected the parts '## Instructions' and '## Repair', the latter with {{problem}}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(path.stem, language, named["Instructions"], named["Repair"], digest)


def prompt_language(cues: Cues) -> str:
    """The prompt for a clip: Chinese for Chinese, English for everything else (models know it best)."""
    tag = re.split(r"[-_]", cues.language.strip().casefold())[0]
    if tag:
        return "zh" if tag in ("zh", "cmn", "yue", "zho", "chi") else "en"
    return "zh" if han_share(cues.transcript) > 0.5 else "en"


def han_share(text: str) -> float:
    """Share of Chinese characters among the letters of a text; 0 for one without letters."""
    letters = sum(map(str.isalpha, text))
    return len(_HAN.findall(text)) / letters if letters else 0.0


def clip_data(cues: Cues) -> dict[str, str | bool | list]:
    """What a model is told of a clip; what is too long is cut, and then it is told that too."""
    data = {
        "transcript": _whole(cues.transcript)[:LONGEST_TRANSCRIPT],
        "voice": [_phrase(cue) for cue in cues.voice[:MOST_PHRASES]],
        "face": [_phrase(cue) for cue in cues.face[:MOST_PHRASES]],
        "words": [_phrase(cue) for cue in cues.words[:MOST_PHRASES]],
        "context": [[_phrase(part) for part in said] for said in cues.context[-MOST_CONTEXT:]],
    }
    phrases = [*cues.voice, *cues.face, *cues.words, *(part for said in cues.context for part in said)]
    many = max(map(len, (cues.voice, cues.face, cues.words))) > MOST_PHRASES or len(cues.context) > MOST_CONTEXT
    if many or len(cues.transcript) > LONGEST_TRANSCRIPT or any(len(phrase) > LONGEST_PHRASE for phrase in phrases):
        data["cut"] = True
    return data


def as_data(data: dict[str, str | bool | list]) -> str:
    """JSON of a clip: it parses back to exactly what was given, and holds no sign of markup outside its structure."""
    return "{" + ", ".join(f'"{name}": {_json(value)}' for name, value in data.items()) + "}"


def _json(value: str | bool | list) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    written = _escaped(json.dumps(value, ensure_ascii=False), _MARKS)
    if written.isprintable():
        return written
    # control characters, direction marks and other invisible signs; ASCII's own control characters are escaped already
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in written)


def _escaped(text: str, signs: re.Pattern) -> str:
    return signs.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)


def _phrase(text: str) -> str:
    return _whole(text)[:LONGEST_PHRASE]


def _whole(text: str) -> str:
    """Halves of surrogate pairs, which no encoding can carry, become U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
