"""What a language model answered, checked before anybody believes it.

What is checked: the form (pydantic), that the quoted evidence really was said or given, that the description is in the
prompt's language, holds no class scores and does not just repeat the transcript. What cannot be checked: whether a
well-formed answer with real quotes judges rightly. A transcript that talks a model into other scores, or into another
opinion in the model's own words, is not found out here; scores stay apart from the text, one label source of several.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from ecmf_lib.config import EMOTIONS
from ecmf_lib.cues import Cues
from ecmf_lib.enrich_prompt import han_share

TONES = ("sincere", "sarcastic", "ironic", "joking", "polite", "pretending", "unclear")
LONGEST_DESCRIPTION = 1000  # characters; three sentences are some 400
LONGEST_ANSWER = 20_000  # characters of a whole answer
MOST_REPEATED = {"en": 80, "zh": 30}  # characters in a row, or 60 % of all, that a description and a transcript share

# of the six classes and of scoring, as they appear beside a number
_CLASS = (
    r"neutral\w*|ang(?:er|ry)|happ(?:y|iness)|sad(?:ness)?|worr(?:y|ied)|surprised?|joy\w*|fear\w*|scores?|probabilit(?:y|ies)|likelihood"
    r"|中性|愤怒|生气|高兴|开心|快乐|悲伤|难过|担心|担忧|惊讶|分数|得分|评分|概率|可能性"
)
_SHARE = r"(?:\d*[.,]\d+|\d+(?:\.\d+)?\s*(?:[%％]|percent\b|/\s*10+\b|out of 10+\b|分)|百分之\S|[一二三四五六七八九]成)"
_BETWEEN = (
    r"(?:\s|[\"'”:=：(（~≈,，|/→—–-]|[的是为有约达占]"
    r"|\b(?:with|at|by|for|of|is|are|was|an?|the|about|around|some|score|level|to|as)\b)"
)
_SCORED = re.compile(
    rf"(?:{_CLASS}){_BETWEEN}{{0,12}}{_SHARE}"  # happy with a score of 0.8
    rf"|(?:{_CLASS})[\"'”]?\s*[:=：(（]\s*\d"  # "happy": 1
    rf"|{_SHARE}{_BETWEEN}{{0,8}}(?:{_CLASS})",  # 80 % happy
    re.IGNORECASE,
)
# on stripped text: neighbours that both match blanks would take hours on an answer that runs on in empty lines
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?(?=\s)(.*)```", re.DOTALL | re.IGNORECASE)
_KEPT_INVISIBLE = "\u200c\u200d"  # Persian and Indic spelling and joined emoji need them

_score = (float, Field(ge=0, le=100, allow_inf_nan=False))
Scores = create_model("Scores", __config__=ConfigDict(extra="forbid"), **dict.fromkeys(EMOTIONS, _score))


class Answer(BaseModel):
    """The JSON that the prompts ask for. Evidence stands first: models go on to believe what they have written."""

    evidence_words: list[str] = Field(max_length=50)
    evidence_cues: list[str] = Field(max_length=50)
    wants: str = Field(max_length=1000)
    tone: Literal[TONES]
    description: str
    scores: Scores

    @field_validator("tone", mode="before")
    @classmethod
    def _lower(cls, tone: object) -> object:
        return tone.strip().lower() if isinstance(tone, str) else tone

    @property
    def evidence(self) -> tuple[str, ...]:
        """All quotes."""
        return (*self.evidence_words, *self.evidence_cues)

    def shares(self) -> dict[str, float]:
        """Scores by class, brought to a sum of one."""
        given = self.scores.model_dump()
        total = sum(given.values())
        return {name: round(value / total, 6) for name, value in given.items()}


class Unusable(Exception):
    """An answer that cannot be used; the message completes "That answer cannot be used: "."""


def check_answer(text: str, cues: Cues, language: str, *, cut_off: bool = False) -> Answer:
    """Read and check one answer.

    Parameters
    ----------
    text : str
        As the model wrote it. A part in ``<think>`` at its start and a Markdown fence around it are taken off.
    cues : Cues
        What the model was told of the clip.
    language : {"en", "zh"}
        Of the prompt.
    cut_off : bool
        Whether the model stopped because its tokens ran out.

    Returns
    -------
    Answer
        Cleaned: without control characters and over-long sentences, without quotes that occur nowhere.

    Raises
    ------
    Unusable
        Naming the first problem.
    """
    answer = _read(text, cut_off)
    description = shortened(clean(answer.description))
    _check_description(description, clean(cues.transcript), language)
    if not any(answer.scores.model_dump().values()):
        raise Unusable("all scores are 0")
    spoken = _sources(cues)
    words, given = (_founded(quotes, spoken) for quotes in (answer.evidence_words, answer.evidence_cues))
    if not words and not given and any(spoken):
        raise Unusable("no quote in 'evidence_words' or 'evidence_cues' occurs in the clip's transcript or cues")
    cleaned = {
        "description": description,
        "wants": clean(answer.wants),
        "evidence_words": words,
        "evidence_cues": given,
    }
    return answer.model_copy(update=cleaned)


def clean(text: str) -> str:
    """One line in Unicode's NFC, without control characters, direction marks and other invisible signs."""
    kept = (
        sign if sign.isprintable() or sign in _KEPT_INVISIBLE else " " if sign.isspace() else ""
        for sign in unicodedata.normalize("NFC", text)
    )
    return " ".join("".join(kept).split())


def shortened(text: str, longest: int = LONGEST_DESCRIPTION) -> str:
    """At most so many characters, up to the end of a sentence where there is one in the last half."""
    if len(text) <= longest:
        return text
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s)|[。！？]", text[: longest + 1])]
    return text[: ends[-1]] if ends and longest / 2 < ends[-1] <= longest else text[: longest - 1].rstrip() + "…"


def _read(text: str, cut_off: bool) -> Answer:
    if not text.strip():
        raise Unusable("it is empty")
    if len(text) > LONGEST_ANSWER:
        raise Unusable(f"it has {len(text)} characters")
    body = text.strip()
    if thought := _THOUGHT.match(body):
        body = body[thought.end() :].strip()
    fenced = _FENCED.fullmatch(body)
    try:
        content = json.loads(fenced[1] if fenced else body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if cut_off:
            raise Unusable("it is cut off; be briefer") from None
        where = f" ({error.msg} at character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise Unusable(f"it is not one JSON object and nothing else{where}") from None
    try:
        return Answer.model_validate(content)
    except ValidationError as error:
        raise Unusable("; ".join(_explain(problem) for problem in error.errors()[:3])) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _explain(problem: dict) -> str:
    name = clean(".".join(map(str, problem["loc"])))[:60] or "the answer"
    if problem["type"] == "missing":
        return f"'{name}' is missing"
    if problem["type"] == "extra_forbidden":
        return f"'{name}' is not one of the classes {', '.join(EMOTIONS)}"
    return f"'{name}': {problem['msg']}"


def _check_description(description: str, transcript: str, language: str) -> None:
    letters = sum(map(str.isalpha, description))
    if letters < (8 if language == "zh" else 16):
        raise Unusable("'description' says nothing")
    # the language by its script: Chinese apart from everything, English apart from what is not written in Latin letters
    if language == "zh" and han_share(description) < 0.5:
        raise Unusable("'description' is not in Chinese")
    if language == "en" and _latin_share(description) < 0.7:
        raise Unusable("'description' is not in English")
    if _SCORED.search(description):
        raise Unusable("'description' holds scores; they belong into 'scores' only")
    most = max(1, min(MOST_REPEATED[language], int(0.6 * len(description))))
    if any(description[at : at + most] in transcript for at in range(len(description) - most + 1)):
        raise Unusable("'description' repeats the transcript instead of describing the speaker")


def _latin_share(text: str) -> float:
    letters = [sign for sign in text if sign.isalpha()]
    return sum(sign.isascii() or "\u00c0" <= sign <= "\u024f" for sign in letters) / len(letters)


def _sources(cues: Cues) -> list[str]:
    """Everything that can be quoted, in the form in which quotes are compared."""
    said = (part for utterance in cues.context for part in utterance)
    return [plain for text in (cues.transcript, *cues.voice, *cues.face, *cues.words, *said) if (plain := _plain(text))]


def _founded(quotes: list[str], sources: list[str]) -> list[str]:
    """The quotes that occur in a source, as whole words where the script has words."""
    return [clean(quote)[:500] for quote in quotes if any(_occurs(_plain(quote), source) for source in sources)]


def _occurs(quote: str, source: str) -> bool:
    if not quote or quote not in source:
        return False
    if han_share(quote):
        return True
    return re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", source) is not None


def _plain(text: str) -> str:
    """What is left of a text when only its letters and digits count: quotes come with other punctuation and case."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
