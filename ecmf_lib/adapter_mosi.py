"""CMU-MOSI as ready-made features: opinions about films, two classes, three streams and a published split.

Zadeh et al., "MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in Online Opinion Videos",
arXiv 1606.06259, 2016. The features are those of Poria et al., "Context-Dependent Sentiment Analysis in User-Generated
Videos", ACL 2017. What their files hold is in :mod:`ecmf_lib.mosi_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib.corpus import PARTS, Corpus, FeatureRows, make_corpus
from ecmf_lib.mosi_files import STREAMS, TRANSCRIPTS, MosiFiles, belongs_to_mosi, read_mosi

__all__ = ["CLASSES", "belongs_to_mosi", "open_mosi"]

CLASSES = ("negative", "positive")  # of the labels "0" and "1"
_NOTES = (
    "CMU-MOSI: two classes of sentiment (negative, positive) in place of the six emotions: do not compare scores with "
    "those of emotion corpora.",
    "CMU-MOSI: features come ready-made, without clips. The column part holds the published split, whose videos are "
    "disjoint. Score on that split only: the text and video features of the training part know its labels. In folds by "
    "video logistic regression has a weighted F1 of .98 (text) and .92 (video) within the training part, but .75 and "
    ".52 on the test part. Folds inside the training part, as for choosing C or when to stop, are flattered likewise.",
    "CMU-MOSI: the group that folds hold apart is the video; each has one speaker, and nothing tells whether a speaker "
    "made several.",
    "CMU-MOSI: audio and video rows name no utterance; their order and their labels tie them to the text rows.",
)
_LICENCE = (
    "research use (CMU-MOSI, Zadeh et al. 2016, arXiv 1606.06259); features MIT (declare-lab, "
    "contextual-utterance-level-multimodal-sentiment-analysis)"
)


def open_mosi(folder: Path) -> Corpus:
    """CMU-MOSI's utterances, all ``labelled``; the column ``part`` says ``train`` or ``test``.

    A feature that is NaN or infinite is no problem here: the clip's stream is recorded as missing when it is imported.
    An utterance that neither part has is left out, with the reason.

    Raises
    ------
    CorpusError
        For a folder that lacks a file, or with every row that does not fit the others.
    """
    files = read_mosi(folder)
    order = sorted(files.used)  # as in the transcripts, where a video's utterances stand together
    kept = files.words.loc[order]
    clips = pd.DataFrame(
        {
            "id": kept["id"],
            "transcript": kept["transcript"],
            "language": "en",
            "label": kept["code"].map(dict(zip("01", CLASSES, strict=True))),
            "split": "labelled",
            "speaker": kept["video"],
            "part": [files.used[number][0] for number in order],
        }
    )
    rows = kept["row"].tolist()
    others = files.words.drop(index=order)
    return make_corpus(
        "mosi",
        folder,
        clips,
        classes=CLASSES,
        where=lambda index, column: (TRANSCRIPTS, rows[index] if index >= 0 else 1),
        left_out=pd.DataFrame({"id": others["id"], "reason": "in neither part of the published split"}, dtype=str),
        notes=_NOTES,
        licence=_LICENCE,
        features=tuple(_features(files, stream, order, clips["id"].tolist()) for stream in STREAMS),
    )


def _features(files: MosiFiles, stream: str, order: list[int], ids: list[str]) -> FeatureRows:
    matrix = np.stack([files.values[stream, part][place] for part, place in map(files.used.get, order)])
    row = {id: i for i, id in enumerate(ids)}

    def read(wanted: Sequence[str]) -> np.ndarray:
        return matrix[[row[id] for id in wanted]]

    source = " + ".join(f"{stream}_{part}0.csv" for part in PARTS)
    return FeatureRows(source=source, stream=stream, read=read)
