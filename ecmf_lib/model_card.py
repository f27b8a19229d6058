"""A bundle's model card: what it is for, what to expect of it, for whom it fails, and what nobody has looked at.

The form follows Mitchell et al. 2019, "Model Cards for Model Reporting". Every number comes from the bundle and its
stored predictions; what is not known is said to be.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ecmf_lib.card_text import LIMITS, NOT_FOR, USE, bullets, plain, table, write_card
from ecmf_lib.ensemble import Bundle
from ecmf_lib.evaluate import per_class
from ecmf_lib.group_scores import UNKNOWN, group_scores, speaker_scores, surest_mistakes, worst_pairs

#: Fewer training clips of a class, or fewer speakers, than these are named as a gap.
FEW_CLIPS, FEW_GROUPS = 30, 20
NAME = "MODEL_CARD.md"


def write_model_card(
    folder: Path,
    *,
    predictions: pd.DataFrame | None = None,
    groups: pd.DataFrame | None = None,
    bootstrap: int = 2000,
) -> Path:
    """Write a bundle's card beside its folder: ``<bundle>-MODEL_CARD.md``. (Nothing may be added to the folder itself.)

    Parameters
    ----------
    folder : Path
        Of a saved bundle.
    predictions : DataFrame, optional
        Of clips that the members asked had not trained on, as :func:`ecmf_lib.bundle.train_bundle` gives them: scores
        by class, speaker and group, and failures, come from it. Without it the card says that they are not known.
    groups : DataFrame, optional
        Who the speakers are, see :func:`ecmf_lib.group_scores.group_scores`.
    bootstrap : int
        Resamples of speakers for the intervals of groups.

    Returns
    -------
    Path

    Raises
    ------
    BundleError
        If the bundle cannot be read or was changed.
    PredictionError
        For predictions or groups that are none.
    """
    folder = Path(folder).resolve()
    bundle = Bundle.load(folder)
    sections = [
        ("What it is", _what(bundle)),
        ("What it is for, and what not", "\n\n".join([USE, NOT_FOR])),
        ("What it was trained on", _trained_on(bundle)),
        ("Who is not in the data", bullets(_gaps(bundle, predictions, groups))),
        ("What to expect of it", _expected(bundle)),
        ("By class", _by_class(predictions)),
        ("By group", _by_group(bundle, predictions, groups, bootstrap)),
        ("Where it fails", _failures(bundle, predictions)),
        ("Limits", LIMITS),
        ("How to find these numbers again", _provenance(bundle)),
    ]
    return write_card(folder.with_name(f"{folder.name}-{NAME}"), f"Model card: {folder.name}", sections)


def _what(bundle: Bundle) -> str:
    about, streams = bundle.about, bundle.encoders
    kinds = plain((about.get("model") or {}).get("name", bundle.models[0].name))
    text = (
        f"An ensemble of {len(bundle.models)} {kinds} model(s): a clip of a few seconds → probabilities of "
        f"{', '.join(plain(name) for name in bundle.classes)}. It looks at these streams:"
    )
    rows = [
        [name, told.get("name", ""), told.get("dim"), told.get("licence", "not stated"), _weights(told)]
        for name, told in ((stream, streams[stream]) for stream in bundle.streams)
    ]
    return f"{text}\n\n{table(['stream', 'encoder', 'numbers', 'licence', 'weights'], rows)}"


def _weights(told: dict) -> str:
    return "random: means nothing" if told.get("stand_in") else "as published, or none"


def _trained_on(bundle: Bundle) -> str:
    about = bundle.about
    unit = plain(about.get("folds_hold_apart", "group"))  # "speaker" where speakers are known
    lines = [
        f"corpus: {plain(about.get('corpus', UNKNOWN))}, licence: {plain(about.get('licence', 'not stated'))}",
        f"labelled clips: {plain(about.get('clips', UNKNOWN))}, of {plain(about.get('groups', UNKNOWN))} {unit}s",
        f"labels: {plain(about.get('labels', UNKNOWN))}; decided by a human where they were doubted: "
        f"{'yes' if about.get('reviewed_by_a_human') else 'no'}",
        *(plain(note) for note in about.get("notes") or []),
    ]
    counts = about.get("class_clips") or {}
    shown = table(["class", "training clips"], [[name, counts.get(name, 0)] for name in bundle.classes])
    return f"{bullets(lines)}\n\n{shown}"


def _gaps(bundle: Bundle, predictions: pd.DataFrame | None, groups: pd.DataFrame | None) -> list[str]:
    about, lines = bundle.about, []
    counts = about.get("class_clips") or {}
    few = [f"{plain(name)} ({counts.get(name, 0)})" for name in bundle.classes if counts.get(name, 0) < FEW_CLIPS]
    if few:
        lines.append(f"Classes with fewer than {FEW_CLIPS} training clips: {', '.join(few)}.")
    number = about.get("groups")
    if isinstance(number, int) and number < FEW_GROUPS:
        lines.append(f"Most people: there are {number} groups in it, too few to stand for anybody else.")
    if not _knows_speakers(bundle):
        lines.append("Who speaks is not known, so the scores are not those of new people, and are too good.")
    attributes = [name for name in groups if name not in ("speaker", "id")] if groups is not None else []
    missing = [name for name in ("gender", "age", "language", "origin") if name not in attributes]
    lines.append(f"Nobody has told this card the speakers' {', '.join(missing)}: whom it leaves out is not known.")
    if predictions is None:
        lines.append("No predictions were given: it is not known for which speakers it fails.")
    return lines


def _expected(bundle: Bundle) -> str:
    about, told = bundle.about, bundle.about.get("expected") or {}
    score, low, high = (told.get(name) for name in ("weighted_f1", "low", "high"))
    if score is None:
        return "Not known: the bundle says nothing about it."
    between = "no interval: too few groups" if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    lines = [f"weighted F1 {score:.3f} ({between}), {plain(told.get('clips'))} clips: {plain(told.get('how', ''))}"]
    if inner := (about.get("out_of_fold") or {}).get("weighted_f1"):
        lines.append(f"out of fold within the training part: {inner:.3f}")
    if calibration := about.get("calibration"):
        lines.append(
            f"calibration error {calibration['ece_after']:.3f} (before its temperature of {bundle.temperature:.2f}: "
            f"{calibration['ece_before']:.3f}): how far a stated probability is from the share of right answers"
        )
    return bullets(lines)


def _by_class(predictions: pd.DataFrame | None) -> str:
    if predictions is None:
        return ""
    rows = per_class(predictions).reset_index().itertuples(index=False)
    return table(["class", "precision", "recall", "F1", "clips"], rows)


def _knows_speakers(bundle: Bundle) -> bool:
    return bundle.about.get("folds_hold_apart", "speaker") == "speaker"


def _by_group(bundle: Bundle, predictions: pd.DataFrame | None, groups: pd.DataFrame | None, bootstrap: int) -> str:
    if predictions is None or not _knows_speakers(bundle):
        return "Not known."
    by_speaker = speaker_scores(predictions)
    spread = by_speaker["accuracy"]
    text = (
        f"Share of right answers by speaker, {len(by_speaker)} of them: lowest {spread.min():.2f}, median "
        f"{spread.median():.2f}, highest {spread.max():.2f}."
    )
    if groups is None:
        return f"{text} No groups of speakers are known: differences between them have not been looked at."
    found = group_scores(predictions, groups, n_boot=bootstrap)
    header = ["attribute", "group", "speakers", "clips", "weighted F1", "low", "high", "accuracy"]
    note = "Without an interval: fewer than five speakers, which say nothing about others of their group."
    return f"{text}\n\n{table(header, found.itertuples(index=False))}\n\n{note}"


def _failures(bundle: Bundle, predictions: pd.DataFrame | None) -> str:
    if predictions is None:
        return "Not known."
    parts = [
        (
            "The commonest confusions",
            worst_pairs(predictions, 5),
            ["label", "predicted", "clips", "share of the label"],
        ),
        (
            "Speakers with the fewest right answers",
            speaker_scores(predictions).head(3),
            ["speaker", "clips", "accuracy"],
        ),
        (
            "The surest mistakes: the model, or the label, is wrong here",
            surest_mistakes(predictions, 5),
            ["clip", "speaker", "label", "predicted", "confidence"],
        ),
    ]
    if not _knows_speakers(bundle):
        del parts[1]
    shown = [
        f"{title}:\n\n{table(header, found.itertuples(index=False))}" for title, found, header in parts if len(found)
    ]
    return "\n\n".join(shown)


def _provenance(bundle: Bundle) -> str:
    about = bundle.about
    rows = [
        (name.replace("_", " "), about[name])
        for name in ("code", "python", "data_fingerprint", "seed")
        if name in about
    ]
    rows += [("folds x seeds", f"{about['folds']} x {len(about['seeds'])}")] if "folds" in about else []
    return table(["what", "value"], [*rows, ("digest of the bundle", bundle.digest)])
