"""What each kind of cue adds to a transcript: the same text encoder and folds, with other parts of the description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ecmf_lib.config import ENRICHMENT, EnrichSettings, cache_dir
from ecmf_lib.cues import Cues, describe
from ecmf_lib.encoders import ClipInputs, Encoder, get_encoder
from ecmf_lib.encoders.model import ModelEncoder
from ecmf_lib.evaluate import results_table
from ecmf_lib.explore_text import labelled
from ecmf_lib.profiles import FEW_CLIPS
from ecmf_lib.project import Project
from ecmf_lib.samples import FusionData
from ecmf_lib.study import MAJORITY, close_workers, with_interval
from ecmf_lib.train import ModelSpec, cross_validate
from ecmf_lib.workers import usable_cores

TRANSCRIPT = "transcript alone"
ALL = "transcript + all cues"
BY_MODEL = "text of the language model"
#: Attribute of :class:`Cues` → name of the arm that has this part beside the transcript.
ARMS = {
    "voice": "transcript + prosody",
    "face": "transcript + face",
    "words": "transcript + lexical cues",
    "context": "transcript + context",
}
#: With more texts than this, a pre-trained encoder gives way to character n-grams: minutes, not hours, on a CPU.
MANY_TEXTS = 4000
#: With more labelled clips than this, the regularisation is chosen among :data:`FEW_C` values, for the same reason.
MANY_CLIPS = 4000
FEW_C = (0.001, 0.01)
_AT_ONCE = 256  # texts prepared for a pre-trained encoder at a time
_NOTHING = np.zeros(0, np.float32)


def arms(cues: Sequence[Cues], by_model: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Name → one text a clip: its transcript, alone and with one part of the cues, with all of them.

    Each text is :func:`ecmf_lib.cues.describe` of cues from which the other parts were taken away. Parts that no clip
    has give no arm.

    Parameters
    ----------
    by_model : sequence of str, optional
        What a language model wrote about each clip; one more arm.
    """
    known = [part for part in ARMS if any(getattr(one, part) for one in cues)]
    texts = {TRANSCRIPT: _with(cues, ())} | {ARMS[part]: _with(cues, (part,)) for part in known}
    if len(known) > 1:
        texts[ALL] = _with(cues, known)
    return texts if by_model is None else texts | {BY_MODEL: list(by_model)}


def _with(cues: Sequence[Cues], parts: Sequence[str]) -> list[str]:
    gone = {part: () for part in ARMS if part not in parts}
    return [describe(replace(one, **gone)) for one in cues]


def embed(texts: Sequence[str], encoder: Encoder, device: str = "auto") -> np.ndarray:
    """Texts as a text encoder with ``reads="enrichment"`` sees them: float32 [n, dim]; equal texts are encoded once."""
    different = list(dict.fromkeys(texts))
    inputs = [
        ClipInputs(f"text {i}", _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, "", "", text)
        for i, text in enumerate(different)
    ]
    found = _in_batches(inputs, encoder, device) if isinstance(encoder, ModelEncoder) else map(encoder.encode, inputs)
    vectors = dict(zip(different, (one if one.ndim == 1 else one.mean(axis=0) for one in found), strict=True))
    return np.stack([vectors[text] for text in texts]).astype(np.float32)


def _in_batches(inputs: list[ClipInputs], encoder: ModelEncoder, device: str) -> list[np.ndarray]:
    encoder.ready(device)
    found = []
    for at in range(0, len(inputs), _AT_ONCE):
        found += encoder.run([encoder.prepare(one) for one in inputs[at : at + _AT_ONCE]])
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def labelled_cues(project: Project) -> list[Cues]:
    """Cues of the clips that are done and have a label, in manifest order."""
    done = set(project.ledger.loc[project.ledger["status"] == "done", "id"])
    wanted = done.intersection(labelled(project))
    return [one for one in project.cues if one.id in wanted]


def encoder_for(project: Project, n_texts: int) -> Encoder:
    """The project's own reader of enrichments, or character n-grams where that would take hours."""
    own = project.encoders[ENRICHMENT]
    if isinstance(own, ModelEncoder) and n_texts > MANY_TEXTS:
        return get_encoder("char-ngram", reads=ENRICHMENT)
    return own


def run(project: Project) -> tuple[dict[str, pd.DataFrame], str]:
    """Cross-validate logistic regression on the embedding of each arm's texts; finished folds are kept and read again.

    Folds hold speakers apart and are the same for all arms; regularisation is chosen on inner folds. Arms whose texts
    are the same for all clips say nothing and are left out, such as the transcripts of a corpus without any.

    Returns
    -------
    runs : dict
        Arm → predictions, see :func:`ecmf_lib.train.cross_validate`; last :data:`ecmf_lib.study.MAJORITY`. Empty where
        there are not labelled clips of two classes and groups, or no text differs.
    how : str
        What was run, or why nothing was.
    """
    cues = labelled_cues(project)
    labels = project.corpus.clips.set_index("id").loc[[one.id for one in cues], "label"]
    groups, unit = project.corpus.groups(labels.index) if len(labels) else ([], "")
    if len(set(groups)) < 2 or labels.nunique() < 2:
        return {}, "There are no labelled clips of two classes and two speakers: nothing can be scored."
    texts = {name: told for name, told in arms(cues, _by_model(project, cues)).items() if len(set(told)) > 1}
    if not texts:
        return {}, "All clips have the same words and cues: there is nothing to compare."
    encoder = encoder_for(project, len(texts) * len(cues))
    data = _data(
        project, labels, groups, {name: embed(t, encoder, project.settings.device) for name, t in texts.items()}
    )
    runs = _cross_validated(project.settings, data, groups)
    how = f"{len(cues)} labelled clips, {encoder.name} ({encoder.dim} numbers), folds hold {unit}s apart"
    if encoder.name != project.encoders[ENRICHMENT].name:
        how += f"; {project.encoders[ENRICHMENT].name} would take too long on so many texts"
    if TRANSCRIPT not in texts:
        how += "; there are no transcripts, so all is compared with guessing"
    return runs, how + "."


def _by_model(project: Project, cues: Sequence[Cues]) -> list[str] | None:
    """Texts that a language model wrote, None if none did."""
    enriched = project.enriched.set_index("id")
    if not enriched["state"].isin(["enriched", "repaired"]).any():
        return None
    return enriched.loc[[one.id for one in cues], "text"].tolist()


def _data(project: Project, labels: pd.Series, groups: Sequence[str], streams: dict[str, np.ndarray]) -> FusionData:
    classes = project.corpus.classes
    return FusionData(
        ids=labels.index.tolist(),
        streams=streams,
        present={name: np.ones(len(labels), bool) for name in streams},
        labels=labels.map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64),
        speakers=list(groups),
        classes=tuple(classes),
    )


def _cross_validated(settings: EnrichSettings, data: FusionData, groups: Sequence[str]) -> dict[str, pd.DataFrame]:
    options = {"C": FEW_C} if len(data) > MANY_CLIPS else {}
    specs = [ModelSpec(name, "logistic", streams=(name,), options=options) for name in data.streams]
    specs.append(ModelSpec(MAJORITY, "majority", streams=(next(iter(data.streams)),)))
    workers = 1 if len(data) < FEW_CLIPS else settings.workers or usable_cores()
    runs = {
        spec.name: cross_validate(
            data,
            spec,
            n_folds=settings.folds,
            seeds=[settings.seed],
            groups=groups,
            folder=cache_dir() / "cache",
            workers=workers,
            progress=False,
        )
        for spec in specs
    }
    if workers > 1:
        close_workers()
    return runs


def reference(runs: dict[str, pd.DataFrame]) -> str:
    """What arms are compared with: the transcript, or guessing where there is none."""
    return TRANSCRIPT if TRANSCRIPT in runs else MAJORITY


def fullest(runs: dict[str, pd.DataFrame]) -> str:
    """The arm that has most: the language model's text, else all cues, else what there is."""
    return next(name for name in reversed(runs) if name != MAJORITY)


def ends(runs: dict[str, pd.DataFrame]) -> list[str]:
    """The two runs to put side by side, with least and with most; one if they are the same, none without runs."""
    return list(dict.fromkeys([reference(runs), fullest(runs)])) if runs else []


def table(runs: dict[str, pd.DataFrame], *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Arms side by side, first what the others are compared with: the transcript alone.

    Columns as :func:`ecmf_lib.evaluate.results_table`; guessing is not among the comparisons that Holm corrects for.
    """
    least = reference(runs)
    names = [least, *(name for name in runs if name not in (least, MAJORITY))]
    found = results_table({name: runs[name] for name in names}, reference=least, n_boot=n_boot, seed=seed)
    return found.set_index("model").loc[names].reset_index()


def verdict(scores: pd.DataFrame) -> str:
    """A :func:`table` in words."""
    first, *others = (row for _, row in scores.iterrows())
    lines = [f"{first['model']}: weighted F1 {with_interval(first)}."]
    for row in others:
        p = row["p_holm"]
        sure = "too few speakers to test" if np.isnan(p) else f"corrected p = {p:.3f}"
        doubt = "" if p < 0.05 else ", which these data cannot tell from 0"
        lines.append(f"{row['model']}: {row['difference']:+.3f}{doubt} ({sure}).")
    return "\n".join(lines)


def headline(scores: pd.DataFrame) -> dict[str, str]:
    """Figures for the index: least and most, with their intervals."""
    rows = [scores.iloc[0], scores.iloc[-1]][: len(scores)]
    return {f"{row['model']}, weighted F1": with_interval(row) for row in rows}
