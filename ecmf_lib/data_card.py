"""A corpus's data card: what is in it, what was left out and why, who is not in it, and how far labels can be trusted.

After Gebru et al. 2021, "Datasheets for Datasets", as far as the manifest and the ledger can answer. They do not know
how people were asked, or what they agreed to: the card says that somebody has to add it.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd

from ecmf_lib.card_text import LIMITS, NOT_FOR, USE, bullets, plain, table, write_card
from ecmf_lib.corpus import Corpus
from ecmf_lib.model_card import FEW_CLIPS, FEW_GROUPS
from ecmf_lib.project import Project


def write_data_card(project: Project, path: Path, *, groups: pd.DataFrame | None = None) -> Path:
    """Write the card of a project's corpus.

    Parameters
    ----------
    project : Project
        See :func:`ecmf_lib.project.open_project`.
    path : Path
        Such as ``DATA_CARD.md``.
    groups : DataFrame, optional
        One row a speaker (column ``speaker``), and a column for each attribute: gender, age, first language, …

    Returns
    -------
    Path
    """
    corpus, ledger = project.corpus, project.ledger
    sections = [
        ("What it is", _what(project)),
        ("What it is for, and what not", "\n\n".join([USE, NOT_FOR])),
        ("Clips", _clips(corpus)),
        ("Who speaks", _speakers(corpus, groups)),
        ("Who is not in the data", bullets(_gaps(corpus, groups))),
        ("Labels", _labels(corpus)),
        ("What can be seen and heard", _media(ledger)),
        ("What is missing, and why", _missing(corpus, ledger)),
        ("Limits", LIMITS),
        ("What only its makers can say", _TO_ADD),
    ]
    return write_card(path, f"Data card: {corpus.name}", sections)


_TO_ADD = bullets(
    [
        "How were people found, what did they agree to, and can they take it back?",
        "Did they act or feel it? Who labelled, how were they instructed and paid?",
        "May clips, features or models be passed on?",
    ]
)


def _what(project: Project) -> str:
    corpus = project.corpus
    lines = [
        f"{len(corpus)} clips, licence: {plain(corpus.licence)}",
        f"fingerprint of its content: {project.data_fingerprint}",
        *(plain(note) for note in corpus.notes),
    ]
    return bullets(lines)


def _clips(corpus: Corpus) -> str:
    clips = corpus.clips.assign(label=corpus.clips["label"].replace("", "(none)"))
    counts = clips.groupby(["split", "label"], sort=True).agg(clips=("id", "size"), speakers=("speaker", _known))
    return table(["split", "label", "clips", "speakers"], counts.reset_index().itertuples(index=False))


def _known(column: pd.Series) -> int:
    return column[column != ""].nunique()


def _speakers(corpus: Corpus, groups: pd.DataFrame | None) -> str:
    clips = corpus.clips
    named = clips[clips["speaker"] != ""]
    lines = [f"{named['speaker'].nunique()} speakers are named, for {len(named)} of {len(clips)} clips"]
    if len(named):
        each = named.groupby("speaker").size()
        lines.append(f"clips of a speaker: {each.min()} to {each.max()}, median {each.median():g}")
    languages = clips["language"].replace("", "not stated").value_counts()
    lines.append("language: " + ", ".join(f"{plain(name)} ({n})" for name, n in languages.items()))
    text = bullets(lines)
    for attribute in [name for name in groups if name not in ("speaker", "id")] if groups is not None else []:
        told = dict(zip(groups["speaker"].astype(str), groups[attribute].astype(str), strict=True))
        group = named["speaker"].map(told).fillna("not known")
        found = named.assign(group=group).groupby("group").agg(speakers=("speaker", "nunique"), clips=("id", "size"))
        text += f"\n\n{table([attribute, 'speakers', 'clips'], found.reset_index().itertuples(index=False))}"
    return text


def _gaps(corpus: Corpus, groups: pd.DataFrame | None) -> list[str]:
    clips, lines = corpus.clips, []
    counts = clips.loc[clips["label"] != "", "label"].value_counts()
    few = [f"{plain(name)} ({counts.get(name, 0)})" for name in corpus.classes if counts.get(name, 0) < FEW_CLIPS]
    if few:
        lines.append(f"Classes with fewer than {FEW_CLIPS} labelled clips: {', '.join(few)}.")
    speakers = _known(clips["speaker"])
    if not speakers:
        lines.append("Nobody is named: how many people these clips show is not known.")
    elif speakers < FEW_GROUPS:
        lines.append(f"Most people: {speakers} speakers are too few to stand for anybody else.")
    languages = sorted(set(clips["language"]) - {""})
    if languages:
        lines.append(f"Speakers of languages other than {', '.join(map(plain, languages))}.")
    attributes = set() if groups is None else set(groups)
    missing = [name for name in ("gender", "age", "first language", "origin") if name not in attributes]
    lines.append(f"The speakers' {', '.join(missing)} are not stated: which groups are left out is not known.")
    return lines


def _labels(corpus: Corpus) -> str:
    clips, names = corpus.clips[corpus.clips["label"] != ""], corpus.annotators
    if clips.empty:
        return "There are none."
    if len(names) < 2:
        return "One label a clip; the annotators behind it are not kept, so nothing is known of how far they agree."
    answers = clips[names].where(clips[names] != "")
    pairs = [(answers[a], answers[b]) for a, b in combinations(names, 2)]
    both = sum(int((a.notna() & b.notna()).sum()) for a, b in pairs)
    same = sum(int((a.notna() & (a == b)).sum()) for a, b in pairs)
    said = answers.notna().sum(axis=1) > 1
    of_one_mind = (answers[said].nunique(axis=1) == 1).mean() if said.any() else float("nan")
    lines = [
        f"{len(names)} annotators, {int(answers.notna().to_numpy().sum())} answers",
        f"two of them give the same answer for {same / both:.0%} of the clips that both saw" if both else "",
        f"all agree on {of_one_mind:.0%} of the clips that several saw" if said.any() else "",
    ]
    return bullets(line for line in lines if line)


def _media(ledger: pd.DataFrame) -> str:
    done = ledger[ledger["status"] == "done"]
    length, faces = done["duration"].dropna(), done["face_share"].dropna()
    sound = done["audio_state"].replace("", "none").value_counts()
    lines = [f"sound: {', '.join(f'{plain(name)} ({n})' for name, n in sound.items())}"] if len(done) else []
    if len(length):
        lines.append(f"{length.sum() / 60:.1f} minutes; a clip has {length.min():.1f} to {length.max():.1f} s")
    if len(faces):
        lines.append(
            f"a face is found in {faces.mean():.0%} of the frames; in no frame of {int((faces == 0).sum())} clips"
        )
    return bullets(lines)


def _missing(corpus: Corpus, ledger: pd.DataFrame) -> str:
    failed = ledger[ledger["status"] == "failed"]
    rows = [["failed", reason, n] for reason, n in failed["reason"].value_counts().head(10).items()]
    rows += [["left out", reason, n] for reason, n in corpus.left_out["reason"].value_counts().head(10).items()]
    return table(["what", "reason", "clips"], rows) if rows else "Nothing: every clip of its files could be used."
