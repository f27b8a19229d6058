"""Training a bundle: an ensemble of all folds and seeds, and its calibration on clips that its members have not seen.

One member is fitted on the training part of each outer fold and seed, so all labelled clips are used, each by most of
the members. What a bundle is and how it is kept: :mod:`ecmf_lib.ensemble`; what it says of new clips:
:mod:`ecmf_lib.predicting`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.parallel import Parallel, delayed
from tqdm import tqdm

from ecmf_lib import train
from ecmf_lib.bundle_files import BundleError, canonical, member_folder, seal, unseal
from ecmf_lib.ensemble import Bundle, encoders_of, load_member, log_of, refuse_pickle
from ecmf_lib.evaluate import calibration_error, interval
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import Fitted, ModelSpec
from ecmf_lib.samples import FusionData
from ecmf_lib.temperature import fit_temperature
from ecmf_lib.train import Preparation, outer_folds

__all__ = ["Bundle", "BundleError", "encoders_of", "train_bundle"]


def train_bundle(
    data: FusionData,
    spec: ModelSpec,
    *,
    n_folds: int = 4,
    seeds: Sequence[int] = (0,),
    epochs: int = 25,
    encoders: Mapping[str, dict],
    about: Mapping[str, object],
    test_fold: np.ndarray | None = None,
    folder: Path | None = None,
    workers: int = 1,
    prepare: Preparation | None = None,
    bootstrap: int = 2000,
    progress: bool = True,
) -> tuple[Bundle, pd.DataFrame]:
    """Train an ensemble of one member for each outer fold and seed, and calibrate it.

    Parameters
    ----------
    data : FusionData
        Labelled clips; folds hold its `speakers` apart.
    spec : ModelSpec
        Not gradient boosting, whose trees would need pickle.
    n_folds, seeds, epochs
        As in :func:`ecmf_lib.train.cross_validate`.
    encoders : mapping
        Of :func:`encoders_of`.
    about : mapping
        JSON-able: corpus, licence, code version, how labels were made, …
    test_fold : int [n], optional
        A published split: clips of the tested part (0 or more) are trained on by no member. They give the expected
        score, since a training part may know its labels in ways that no fold can hold apart (CMU-MOSI's does).
    folder : Path, optional
        Finished members are kept here and read again, as long as data, spec, settings and code are the same.
    workers : int
        Processes. The numbers do not depend on it.
    prepare : Preparation, optional
        Changes each member's training part, and that alone: refined labels, further clips.
    bootstrap : int
        Resamples of speakers for the interval of the expected score.

    Returns
    -------
    bundle : Bundle
    out_of_fold : DataFrame
        One row a labelled clip, predicted by the members that did not train on its group (one a seed, averaged), in the
        form of :func:`ecmf_lib.train.predictions_table`: the honest score and the calibration come from it.

    Raises
    ------
    DataError
        Data that cannot be trained on, see :func:`ecmf_lib.train.cross_validate`.
    BundleError
        A kind of model that cannot be kept.

    Notes
    -----
    A clip's out-of-fold prediction averages one member a seed, the bundle averages ``folds × seeds``. The mean of more
    members is a little less sure of itself and seldom worse: expect the bundle's score to be the stated one or slightly
    better, and its probabilities right or slightly too modest.
    """
    refuse_pickle(spec.kind, spec.name)
    data = data.only(spec.streams) if spec.streams else data
    tested = None
    if test_fold is not None:
        tested, data = data.select(np.asarray(test_fold) >= 0), data.select(np.asarray(test_fold) < 0)
    data.check_varies()
    groups = np.array([str(name) for name in data.speakers])
    folds = {seed: outer_folds(data, groups, n_folds, seed) for seed in seeds}
    tasks = [(seed, number) for seed, fold in folds.items() for number in range(fold.max() + 1)]
    models = _members(data, spec, groups, folds, tasks, epochs, folder, workers, prepare, progress)
    parts = []
    for (seed, number), model in zip(tasks, models, strict=True):
        held = folds[seed] == number
        parts.append(train.predictions_table(model, data.select(held), groups[held], seed=seed, fold=number))
    out_of_fold, calibration = _calibrated(pd.concat(parts), data, spec.name)
    how = f"out of fold, {len(seeds)} member(s) a clip of the bundle's {len(models)}, against given labels"
    told = dict(about) | {
        "model": spec.about(),
        "folds": int(max(fold.max() for fold in folds.values()) + 1),
        "seeds": [int(seed) for seed in seeds],
        "epochs": epochs,
        "steps": max((x.shape[1] for x in data.streams.values() if x.ndim == 3), default=0),
        "clips": len(data),
        "groups": len(set(groups.tolist())),
        "class_clips": {name: int((data.labels == i).sum()) for i, name in enumerate(data.classes)},
        "features": data.fingerprint(),
        "calibration": calibration,
        "expected": _score(out_of_fold, how, bootstrap),
    }
    kept = {stream: dict(encoders[stream]) for stream in data.streams}
    told, kept = json.loads(canonical(told)), json.loads(canonical(kept))
    bundle = Bundle(tuple(models), tuple(data.classes), kept, told, calibration["temperature"])
    if tested is not None:
        scored = as_predictions(tested, *bundle.predict(tested), name=spec.name, temperature=bundle.temperature)
        score = _score(scored, "published test part, the whole bundle, against given labels", bootstrap)
        more = {"out_of_fold": told["expected"], "expected": score | {"ece": calibration_error(scored)}}
        bundle = replace(bundle, about=told | more)
    return bundle, out_of_fold


def as_predictions(
    data: FusionData, chances: np.ndarray, weights: np.ndarray, *, name: str, temperature: float
) -> pd.DataFrame:
    """What an ensemble says of labelled clips, in the form of :func:`ecmf_lib.train.predictions_table`."""
    classes = np.array(data.classes)
    table = {
        "model": name,
        "seed": 0,
        "id": data.ids,
        "speaker": list(data.speakers),
        "label": classes[data.labels],
        "predicted": classes[chances.argmax(1)],
    }
    table |= {f"p_{label}": chances[:, i] for i, label in enumerate(data.classes)} | {"temperature": temperature}
    return pd.DataFrame(table | {f"w_{stream}": weights[:, i] for i, stream in enumerate(data.streams)})


def _score(predictions: pd.DataFrame, how: str, bootstrap: int) -> dict:
    found = interval(predictions, n_boot=bootstrap)
    low, high = (None if np.isnan(end) else end for end in (found.low, found.high))
    return {"weighted_f1": found.value, "low": low, "high": high, "clips": len(predictions), "how": how}


def _calibrated(said: pd.DataFrame, data: FusionData, name: str) -> tuple[pd.DataFrame, dict]:
    """Each clip's mean over seeds, scaled by the ensemble's temperature; and how it was calibrated."""
    chances = [f"p_{label}" for label in data.classes]
    weights = [f"w_{stream}" for stream in data.streams]
    said[chances] = log_of(said[chances].to_numpy())
    mean = said.groupby("id")[[*chances, *weights]].mean().loc[data.ids]
    logs, hot = mean[chances].to_numpy(), np.eye(len(data.classes))[data.labels]
    temperature = fit_temperature(logs, hot)

    def table(t: float) -> pd.DataFrame:
        return as_predictions(data, np.exp(log_softmax(logs / t)), mean[weights].to_numpy(), name=name, temperature=t)

    after = table(temperature)
    error = {"ece_before": calibration_error(table(1.0)), "ece_after": calibration_error(after)}
    return after, {"temperature": temperature, **error, "clips": len(data), "bins": 10}


def _members(data, spec, groups, folds, tasks, epochs, folder, workers, prepare, progress) -> list[Fitted]:
    """Members in the order of the tasks: read where they are kept, else trained and kept."""
    asked = ("bundle", "" if prepare is None else prepare.about())
    places = {task: None for task in tasks}
    if folder is not None:
        keys = {seed: train.part_key(data, spec, groups.tolist(), fold, epochs, asked) for seed, fold in folds.items()}
        for seed, number in tasks:
            places[seed, number] = Path(folder) / f"member-{train.slug(spec)}-{keys[seed]}-seed{seed}-fold{number}"
    done = {task: _kept(place) for task, place in places.items() if place is not None}
    done = {task: model for task, model in done.items() if model is not None}
    todo = [task for task in tasks if task not in done]
    jobs = (
        delayed(train.fit_part)(data, spec, groups, folds[task[0]] != task[1], task, epochs, prepare) for task in todo
    )
    results = Parallel(n_jobs=workers, return_as="generator")(jobs)
    bar = tqdm(zip(todo, results, strict=True), total=len(todo), desc=spec.name, disable=not progress, leave=False)
    for task, model in bar:
        done[task] = model
        if places[task] is not None:
            _keep(model, places[task])
    return [done[task] for task in tasks]


def _keep(model: Fitted, place: Path) -> None:
    """Keep a member, sealed as a bundle is; whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".member."))
    try:
        model.save(work / member_folder(0))
        seal(work, {})
        shutil.rmtree(place, ignore_errors=True)  # damaged, or it would have been read
        os.rename(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _kept(place: Path) -> Fitted | None:
    """A member that was kept; None where there is none, or it is damaged: then it is trained anew."""
    if not place.is_dir():
        return None
    try:
        unseal(place)
        return load_member(place / member_folder(0))
    except BundleError:
        return None
