"""MELD: utterances of a television series with speakers, dialogues and emotions; here its words only.

Poria et al., "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations", ACL 2019. Csv files as
published: ``train_sent_emo.csv``, ``dev_sent_emo.csv``, ``test_sent_emo.csv``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from ecmf_lib.corpus import Corpus, CorpusError, make_corpus
from ecmf_lib.tables import read_csv

#: Part of the published split → ours.
PARTS = {"train": "labelled", "dev": "labelled", "test": "test"}
NEEDED = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
#: MELD's word → our class ("" = there is none).
EMOTIONS = {
    "neutral": "neutral",
    "anger": "angry",
    "joy": "happy",
    "sadness": "sad",
    "fear": "worried",
    "surprise": "surprise",
    "disgust": "",
}
_SEVERAL = re.compile(r"\band\b|^(?:all|both|everyone|everybody|the guys|the girls)$", re.IGNORECASE)
_NOTES = (
    "MELD: fear counts as worried (lossy); disgust has no class here and is left out.",
    "MELD: folds hold speakers apart; six friends speak five of six utterances. Dialogues straddle folds, since "
    "several of the six speak in nearly each: words of training clips (never their labels) may stand in the context of "
    "test clips. MELD's own test part shares episodes and speakers with its training part.",
    "MELD: what is left out is missing from the context of the utterances after it.",
)


def open_meld(folder: Path) -> Corpus:
    """MELD's transcripts: text only, with dialogue context; train and dev are ``labelled``, test is ``test``.

    Ids are ``<part>_d<dialogue>_u<utterance>``. Utterances of several people at once are left out, because no fold can
    hold all of them apart; a part that an actor plays ("Joey/Drake") counts as the actor.

    Raises
    ------
    CorpusError
        For a folder without any of the three files, a file that lacks a column, or an unknown emotion.
    """
    files = {part: folder / f"{part}_sent_emo.csv" for part in PARTS}
    parts = {part: _read(path) for part, path in files.items() if path.is_file()}
    if not parts:
        raise CorpusError(f"{folder}: expected MELD's {', '.join(path.name for path in files.values())}; found none")
    rows = pd.concat([table.assign(part=part, row=table.index + 2) for part, table in parts.items()])
    named = rows["part"] + "_d" + rows["Dialogue_ID"]
    clips = pd.DataFrame(
        {
            "id": named + "_u" + rows["Utterance_ID"],
            "transcript": rows["Utterance"].str.strip(),
            "language": "en",
            "label": rows["Emotion"].map(EMOTIONS),
            "split": rows["part"].map(PARTS),
            "speaker": rows["Speaker"].str.strip().str.split("/").str[0],
            "dialogue": named,
            "turn": rows["Utterance_ID"],
        }
    )
    reasons = rows["Emotion"].map(lambda word: "" if EMOTIONS[word] else f"emotion '{word}' has no class among the six")
    several = clips["speaker"].map(lambda name: bool(_SEVERAL.search(name)))
    reasons = reasons.mask((reasons == "") & several, "said by several people at once: no fold can hold them all apart")
    kept = (reasons == "").to_numpy()
    at = rows[kept]
    return make_corpus(
        "meld",
        folder,
        clips[kept].reset_index(drop=True),
        where=lambda index, column: (files[at["part"].iloc[index]].name, int(at["row"].iloc[index])),
        left_out=pd.DataFrame({"id": clips["id"], "reason": reasons})[~kept].reset_index(drop=True),
        notes=_NOTES,
        licence="GPL-3.0 (MELD, declare-lab)",
    )


def _read(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    absent = [column for column in NEEDED if column not in table.columns]
    if absent:
        raise CorpusError(f"{path}: no column {absent}; expected {list(NEEDED)}, found {list(table.columns)}")
    unknown = table.index[~table["Emotion"].isin(EMOTIONS)]
    if len(unknown):
        rows = ", ".join(f"row {i + 2} {table['Emotion'][i]!r}" for i in unknown[:10])
        raise CorpusError(f"{path}: {len(unknown)} unknown emotion(s), {rows}; expected {', '.join(EMOTIONS)}")
    return table
