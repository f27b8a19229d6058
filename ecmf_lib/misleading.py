"""Clips whose words alone may mislead, found by rules about cues and never by labels; and who recognises them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from ecmf_lib.config import ENRICHMENT
from ecmf_lib.cues import Cues
from ecmf_lib.cues_words import lexical_cues
from ecmf_lib.explore_text import labelled, unlike_usual
from ecmf_lib.project import Project

BARE = "bare words"
AGAINST = "at odds"
TURN = "sudden cheer"
TONE = "tone"
#: Tones of a language model that mean: not as the words sound.
NOT_SINCERE = ("sarcastic", "ironic", "joking", "pretending")

FEW_WORDS = 3  # "Fine.": in Chinese twice as many characters
_LOW = re.compile(r"quieter|lower in pitch|slower|pauses|pitch moves (?:much )?less|duller")
_HARD = re.compile(r"louder|sharper")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def candidates(cues: Sequence[Cues], enriched: pd.DataFrame | None = None) -> pd.DataFrame:
    """Clips whose words alone may mislead, by rules that see cues but no label. A clip may be there by several.

    * bare words: up to three words (six Chinese characters), or up to six English words without any lexical cue, where
      voice, face or what was said before tell more
    * at odds: VADER finds the words positive, the clip shows no smile, and the voice is low (two of
      quieter, lower, slower, flatter, duller, with more pauses) or hard (louder and sharper); or the words are negative
      and the face smiles. A rule of thumb: a voice shows arousal better than it shows valence
    * sudden cheer: clearly positive words, and the utterance before was clearly negative
    * tone: a language model, where one was asked, hears it as sarcastic, ironic, joking or pretending

    VADER knows English only, so the second and third find no Chinese clips.

    Returns
    -------
    DataFrame
        id, rule, because (the cues); within a rule those with most cues first, then the shortest.
    """
    tones = {} if enriched is None else dict(zip(enriched["id"], enriched["tone"], strict=True))
    rows = []
    for one in cues:
        if not one.transcript.strip():
            continue
        for rule, found in ((BARE, _bare(one)), (AGAINST, _against(one)), (TURN, _turn(one))):
            if found:
                rows.append((one.id, rule, "; ".join(found), -len(found), _length(one.transcript)))
        if tones.get(one.id) in NOT_SINCERE:
            rows.append((one.id, TONE, f"tone: {tones[one.id]}", -1, _length(one.transcript)))
    order = ["rule", "_cues", "_length"]
    table = pd.DataFrame(rows, columns=["id", "rule", "because", "_cues", "_length"])
    table["rule"] = pd.Categorical(table["rule"], [AGAINST, TURN, TONE, BARE], ordered=True)
    table = table.sort_values(order, kind="stable", ignore_index=True)
    return table[["id", "rule", "because"]].astype({"rule": str})


def _length(text: str) -> float:
    """Words; a Chinese character counts as half a word."""
    return len(re.findall(r"\w+(?:['’]\w+)*", _HAN.sub(" ", text))) + len(_HAN.findall(text)) / 2


def _bare(cues: Cues) -> list[str]:
    # without VADER's valence, to have no lexical cue says little about the words
    if _length(cues.transcript) > FEW_WORDS * (1 if cues.words or _HAN.search(cues.transcript) else 2):
        return []
    before = [f"before: {said}" for _, said in cues.context[-1:]]
    return [*(unlike_usual(phrase) for phrase in (*cues.voice, *cues.face)), *before]


def _against(cues: Cues) -> list[str]:
    valence = _valence(cues.words)
    smiles = [phrase for phrase in cues.face if phrase.startswith("smiles")]
    if valence < 0 and smiles:
        return [_spoken(cues), *map(unlike_usual, smiles)]
    low, hard = ([phrase for phrase in cues.voice if kind.search(phrase)] for kind in (_LOW, _HARD))
    found = low if len(low) > len(hard) else hard
    if valence > 0 and not smiles and len(found) >= 2:
        return [_spoken(cues), *map(unlike_usual, found)]
    return []


def _turn(cues: Cues) -> list[str]:
    if not cues.context or _valence(cues.words) < 2:
        return []
    before = lexical_cues(cues.context[-1][1], cues.language)
    return [_spoken(cues), f"before: {cues.context[-1][1]}"] if _valence(before) <= -2 else []


def _spoken(cues: Cues) -> str:
    return next(cue for cue in cues.words if cue.startswith("words sound"))


def _valence(words: Sequence[str]) -> int:
    """-2 clearly negative … 2 clearly positive, as the lexical cues have it."""
    said = next((cue for cue in words if cue.startswith("words sound")), "")
    return ((" positive" in said) - (" negative" in said)) * (2 if "clearly" in said else 1)


def changed(project: Project, found: pd.DataFrame, runs: Mapping[str, pd.DataFrame], *, n: int = 6) -> pd.DataFrame:
    """The first clips of each rule, with what models of the words and of the enriched text made of them.

    Parameters
    ----------
    found : DataFrame
        See :func:`candidates`.
    runs : mapping
        Name → predictions by models that have not seen the clip's speaker; may be empty.
    n : int
        Clips of a rule; labelled ones go first, as only they show who is right.

    Returns
    -------
    DataFrame
        rule, id, transcript, because, text (that the text encoder reads), label, and a column for each run.
    """
    clips = project.corpus.clips.set_index("id")
    table = found.assign(
        transcript=found["id"].map(clips["transcript"]),
        text=found["id"].map(clips[ENRICHMENT]) if ENRICHMENT in clips else "",
        label=found["id"].map(clips.loc[labelled(project), "label"]).fillna(""),
    )
    for name, run in runs.items():
        table[name] = table["id"].map(run.set_index("id")["predicted"]).fillna("")
    unlabelled = (table["label"] == "").rename("_unlabelled")
    table = table.loc[unlabelled.sort_values(kind="stable").index]
    order = {rule: place for place, rule in enumerate(found["rule"].unique())}
    table = table.groupby("rule").head(n).sort_values("rule", key=lambda rules: rules.map(order), kind="stable")
    return table[["rule", "id", "transcript", "because", "text", "label", *runs]]


def right_by_rule(found: pd.DataFrame, runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How often each run is right on the clips of each rule, and on clips of none.

    Returns
    -------
    DataFrame
        rule, clips (labelled), and a column for each run (share of those clips, 0…1).
    """
    ids = next(iter(runs.values()))["id"]
    parts = {rule: ids.isin(part["id"]) for rule, part in found.groupby("rule", sort=False)}
    parts["none of these"] = ~ids.isin(found["id"])
    rows = []
    for rule, there in parts.items():
        row = {"rule": rule, "clips": int(there.sum())}
        for name, run in runs.items():
            right = run.set_index("id").loc[ids[there]]
            row[name] = (right["label"] == right["predicted"]).mean()
        rows.append(row)
    return pd.DataFrame(rows)
