"""What was heard, seen and said before, in words: the evidence that goes beside a transcript.

A large language model cannot hear. SpeechCueLLM (Wu et al., arXiv 2407.21315) described prosody in words and gave it
to the model with the transcript; here the face, the words themselves and the dialogue are described as well. All of it
is computed offline from features that are in the store, and never from labels. What is measured, and against what, is
in :mod:`ecmf_lib.cues_measures`; what the words give away in :mod:`ecmf_lib.cues_words`.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from ecmf_lib.corpus import Corpus
from ecmf_lib.cues_measures import FACE, USUAL, VOICE, measure, phrases
from ecmf_lib.cues_words import lexical_cues
from ecmf_lib.store import FeatureSet

BEFORE = 3  # utterances of the dialogue that are looked back
#: How the phrase of a face classifier begins. It names a class: evidence for a language model, but in the description
#: it would be a class score that the face stream holds already.
CLASSIFIER = "the face classifier"
LONGEST_TRANSCRIPT, LONGEST_BEFORE, LONGEST_PHRASE = 600, 160, 120  # characters of a description's parts

Utterance = tuple[str, str]  # (speaker, what was said)


@dataclass(frozen=True)
class Cues:
    """The cues of one clip. Each cue is one short plain English phrase; a part without evidence is empty.

    Attributes
    ----------
    id : str
        Clip id.
    transcript : str
        What is said, as the manifest has it: data that somebody else wrote, never an instruction.
    language : str
        Language tag of the transcript; may be empty.
    voice : tuple of str
        Prosody, e.g. "louder than usual for this speaker".
    face : tuple of str
        What the face does, e.g. "smiles clearly".
    words : tuple of str
        Lexical cues, e.g. "negation: don't".
    context : tuple of (speaker, utterance)
        What was said before in the same dialogue, oldest first.
    """

    id: str
    transcript: str
    language: str = ""
    voice: tuple[str, ...] = ()
    face: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    context: tuple[Utterance, ...] = ()

    def to_dict(self) -> dict:
        """All content as JSON-able values."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def digest(self) -> str:
        """64 hex digits of all content, for the keys of caches."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def find_cues(
    corpus: Corpus,
    sets: Mapping[str, FeatureSet],
    *,
    posteriors: Mapping[str, Mapping[str, float]] | None = None,
    before: int = BEFORE,
) -> list[Cues]:
    """The cues of every clip.

    Parameters
    ----------
    corpus : Corpus
        Columns ``dialogue`` and ``turn``, where it has them, give the context.
    sets : mapping of str to FeatureSet
        Encoder name → features of this corpus: "egemaps" and "speech-timing" for the voice, "face-measures" for the
        face. Any may be missing; that part is then empty.
    posteriors : mapping, optional
        Clip id → class → mean probability by a classifier of facial expressions; clips may be missing.
    before : int
        Utterances of context at most.

    Returns
    -------
    list of Cues
        In manifest order, one for each clip.

    Raises
    ------
    ValueError
        For features of another encoder.
    """
    context = _context(corpus.clips, before)
    clips = corpus.clips[["id", "transcript", "language"]].itertuples(index=False)
    rows = measure(corpus, sets).to_dict("records")
    return [
        Cues(
            id=clip.id,
            transcript=clip.transcript,
            language=clip.language,
            voice=phrases(row, VOICE),
            face=phrases(row, FACE) + _classified((posteriors or {}).get(clip.id, {})),
            words=lexical_cues(clip.transcript, clip.language),
            context=context.get(clip.id, ()),
        )
        for clip, row in zip(clips, rows, strict=True)
    ]


def _context(clips: pd.DataFrame, before: int) -> dict[str, tuple[Utterance, ...]]:
    """Clip → what was said before it in its dialogue, as far as the corpus has it."""
    if not {"dialogue", "turn"} <= set(clips.columns):
        return {}
    turns = pd.to_numeric(clips["turn"], errors="coerce")
    spoken = clips.assign(turn=turns)[(clips["dialogue"] != "") & turns.notna()].sort_values("turn", kind="stable")
    found = {}
    for _, dialogue in spoken.groupby("dialogue"):
        said: list[Utterance] = []
        for row in dialogue.itertuples(index=False):
            found[row.id] = tuple(said[-before:]) if before else ()
            if row.transcript:
                said.append((row.speaker, row.transcript))
    return found


def _classified(posterior: Mapping[str, float]) -> tuple[str, ...]:
    """One phrase; two classes where neither has half of the probability."""
    best = sorted(posterior.items(), key=lambda pair: (-pair[1], pair[0]))[:2]
    if not best:
        return ()
    first, *second = (f"{name} ({share:.2f})" for name, share in best)
    if best[0][1] >= 0.5 or not second:
        return (f"{CLASSIFIER} sees {first}",)
    return (f"{CLASSIFIER} wavers between {first} and {second[0]}",)


def describe(cues: Cues) -> str:
    """The cues as a short readable text: what the enricher without a model gives to the text encoder.

    The same cues give the same text. Class names and scores are not in it. What others wrote is quoted, without
    control characters and cut to a length; it is not escaped, which is the business of whoever displays it.

    Returns
    -------
    str
        Cues first, since text encoders cut at the end; then the transcript, then what was said before.
    """
    face = [phrase for phrase in cues.face if not phrase.startswith(CLASSIFIER)]
    parts = [_listed("Voice", cues.voice), _listed("Face", face), _listed("Words", cues.words)]
    told = [part for part in parts if part] or ["Nothing stands out."]
    told.append(f"Said: {_quote(cues.transcript, LONGEST_TRANSCRIPT)}" if cues.transcript.strip() else "No words.")
    if cues.context:
        told.append("Before: " + "; ".join(_utterance(*one) for one in cues.context))
    return " ".join(told)


def _listed(name: str, found: Sequence[str]) -> str:
    """One sentence; what all comparisons are made with is said once."""
    ends = {end for phrase in found for end in USUAL.values() if phrase.endswith(end)}
    if len(ends) == 1:
        end = ends.pop()
        name += ", compared with what is" + end.removeprefix(" than")
        found = [phrase.removesuffix(end) for phrase in found]
    return f"{name}: {'; '.join(_plain(phrase, LONGEST_PHRASE) for phrase in found)}." if found else ""


def _utterance(speaker: str, text: str) -> str:
    return f"{_plain(speaker, 40) or 'somebody'}: {_quote(text, LONGEST_BEFORE)}"


def _quote(text: str, longest: int) -> str:
    """In quotation marks that nothing in the text can close."""
    return f"“{_plain(text, longest)}”"


_QUOTES = str.maketrans(dict.fromkeys('“”„‟"＂', "'"))


def _plain(text: str, longest: int) -> str:
    """One line of limited length without double quotes, control characters, or what turns the direction of writing."""
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 4 * longest])
    text = " ".join(text.translate(_QUOTES).split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
