"""What notebook 05 shows: the final bundle, what it says of new clips, and a submission that is broken on purpose."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from ecmf_lib import explore
from ecmf_lib.bundle import Bundle, as_predictions, encoders_of, train_bundle
from ecmf_lib.config import PredictSettings, SettingsError, cache_dir, resolve
from ecmf_lib.fit import ModelSpec
from ecmf_lib.model_card import write_model_card
from ecmf_lib.predicting import about_project, predict_clips
from ecmf_lib.project import Project
from ecmf_lib.study import REFERENCE, Study, close_workers
from ecmf_lib.study_labels import GIVEN, REFINED, SELF_TRAINED, label_steps
from ecmf_lib.submit import COLUMNS
from ecmf_lib.workers import usable_cores


def final_bundle(project: Project, study: Study, settings: PredictSettings) -> tuple[Bundle, pd.DataFrame, Path]:
    """ECMF by the fixed recipe on all labelled clips (of a published split: its training part), saved and read again.

    Its model card is written beside its folder (:mod:`ecmf_lib.model_card`).

    Labels are refined, and unlabelled clips added, within each member's training part, as the settings say.

    Returns
    -------
    bundle : Bundle
        As it was read from the disk.
    out_of_fold : DataFrame
        See :func:`ecmf_lib.bundle.train_bundle`.
    folder : Path
    """
    wanted = {"given": GIVEN, "refined": REFINED, "self-trained": SELF_TRAINED}[settings.labels]
    if settings.labels == "given" and (settings.review or settings.sources):
        raise SettingsError("labels = 'given': `review` and `sources` would count for nothing; use labels = 'refined'")
    steps = label_steps(study, project, settings.sources, settings.review, wanted=(wanted,))
    if wanted not in steps:
        raise SettingsError("labels = 'self-trained': no unlabelled clips with any of these streams; use 'refined'")
    bundle, out_of_fold = train_bundle(
        study.data,
        ModelSpec(REFERENCE, "ecmf"),
        n_folds=settings.folds,
        seeds=study.seeds(),
        epochs=settings.epochs,
        encoders=encoders_of({name: project.sets[name] for name in study.data.streams}),
        about=about_project(project, settings.labels)
        | {
            "folds_hold_apart": study.unit,
            "label_sources": [Path(entry).name for entry in settings.sources],
            "reviewed_by_a_human": bool(settings.review),
        },
        test_fold=study.test_fold,
        folder=cache_dir() / "cache",
        workers=settings.workers or usable_cores(),
        prepare=steps[wanted],
        bootstrap=settings.bootstrap,
    )
    close_workers()
    default = cache_dir() / "models" / f"{project.corpus.name}-bundle-{settings.labels}-{project.settings.profile}"
    folder = bundle.save(resolve(settings.bundle) if settings.bundle else default)
    write_model_card(folder, predictions=out_of_fold if study.test_fold is None else published_part(bundle, study))
    return Bundle.load(folder), out_of_fold, folder


def bundle_table(bundle: Bundle) -> pd.DataFrame:
    """What a bundle is, in words: what, value."""
    about, calibration = bundle.about, bundle.about["calibration"]
    rows = {
        "members": f"{len(bundle.models)}: {about['folds']} folds x {len(about['seeds'])} seeds",
        "training clips": f"{about['clips']} of {about['groups']} groups, labels: {about['labels']}",
        "streams": ", ".join(f"{name} ({bundle.encoders[name]['name']})" for name in bundle.streams),
        "temperature": f"{bundle.temperature:.3f}",
        "calibration error": f"{calibration['ece_before']:.3f} before, {calibration['ece_after']:.3f} after",
        "licence of the data": about["licence"],
        "digest": bundle.digest[:16],
    }
    return pd.DataFrame({"what": rows.keys(), "value": rows.values()})


def expected(bundle: Bundle) -> str:
    """The honest score with its interval: ``.812 [.771, .850]``."""
    told = bundle.about["expected"]
    score = f"{told['weighted_f1']:.3f}"
    return score if told["low"] is None else f"{score} [{told['low']:.3f}, {told['high']:.3f}]"


def published_part(bundle: Bundle, study: Study) -> pd.DataFrame | None:
    """Predictions of the published split's tested part, which no member has seen; None without such a split."""
    if study.test_fold is None:
        return None
    data = study.data.select(np.asarray(study.test_fold) >= 0)
    said = bundle.predict(data)
    return as_predictions(data, *said, name=REFERENCE, temperature=bundle.temperature)


def new_clips(bundle: Bundle, project: Project) -> pd.DataFrame:
    """Predictions of all clips without a label, with their split and transcript; no rows where there are none."""
    clips = project.corpus.clips
    clips = clips[clips["split"] != "labelled"]
    table = predict_clips(bundle, project, clips)
    table.insert(1, "split", clips["split"].to_numpy())
    return table.assign(transcript=clips["transcript"].to_numpy())


def class_shares(bundle: Bundle, predicted: pd.DataFrame, what: str) -> pd.DataFrame:
    """Shares of the classes, for :func:`ecmf_lib.plots.predictions.class_shares`: class, of, share, clips.

    Parameters
    ----------
    predicted : DataFrame
        With the column ``predicted``; "" is left out.
    what : str
        What its clips are called.
    """
    counts = predicted.loc[predicted["predicted"] != "", "predicted"].value_counts()
    sides = {"training labels": bundle.about["class_clips"], what: counts}
    rows = []
    for side, found in sides.items():
        total = max(sum(int(found.get(name, 0)) for name in bundle.classes), 1)
        rows += [
            {"class": name, "of": side, "share": int(found.get(name, 0)) / total, "clips": int(found.get(name, 0))}
            for name in bundle.classes
        ]
    return pd.DataFrame(rows)


def surest(table: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """The `n` surest and the `n` least sure predictions: id, label (""), predicted, confidence, why, w_<stream>."""
    said = table[table["predicted"] != ""]
    chances = said.filter(regex="^p_")
    said = said.assign(confidence=chances.max(axis=1), label="").sort_values(
        ["confidence", "id"], ascending=[False, True], kind="stable"
    )
    n = min(n, len(said) // 2) or min(1, len(said))
    found = pd.concat([said.head(n).assign(why="surest"), said.tail(n).assign(why="least sure")])
    found = found.drop_duplicates("id")
    columns = ["id", "label", "predicted", "confidence", "why"]
    return found[[*columns, *said.filter(regex="^w_").columns]].reset_index(drop=True)


def against_truth(project: Project, table: pd.DataFrame) -> pd.DataFrame | None:
    """Scores of new clips where the truth is known, in made corpora only: clips, weighted_f1, accuracy; None else."""
    truth = explore.truth(project)
    said = table[table["predicted"] != ""]
    if truth is None or said.empty:
        return None
    true = truth.loc[said["id"], "emotion"].to_numpy()
    score = f1_score(true, said["predicted"], average="weighted", zero_division=0)
    return pd.DataFrame(
        [{"clips": len(said), "weighted_f1": score, "accuracy": accuracy_score(true, said["predicted"])}]
    )


def break_submission(good: Path, broken: Path) -> None:
    """A copy with what people do to submissions: a label misspelt, a row left out, one doubled, one too many."""
    with good.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    copy = [f"{rows[0][0]}_copy", rows[0][1]]
    rows[0] = [rows[0][0], rows[0][1].title() + "s"]
    if len(rows) > 2:
        del rows[1]
    rows += [rows[-1], copy]
    with broken.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def damaged_copy(folder: Path, into: Path) -> Path:
    """A copy of a bundle in which one bit of one member's weights is another, as a faulty disk would have it."""
    copy = Path(shutil.copytree(folder, into / folder.name))
    weights = copy / "members/00/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return copy


def other_version(bundle: Bundle) -> Bundle:
    """The bundle as if its first stream's encoder had been another version when it was trained."""
    stream = bundle.streams[0]
    settings = bundle.encoders[stream]["settings"] | {"encoder_fingerprint": "0" * 16}
    changed = bundle.encoders[stream] | {"fingerprint": "0" * 16, "settings": settings}
    return replace(bundle, encoders=bundle.encoders | {stream: changed})
