"""The challenge at its real size: the official baseline's recipe against ours, in time and in honest weighted F1.

Run with ``python benchmarks/challenge.py [--full]``. Both train on 7,369 labelled clips in five folds and predict
20,000 others; the data are generated (:mod:`challenge_data`), so that the candidates' labels and the best possible
score are known. What is scored are the candidates, which neither has used to choose anything.

Our time is measured whole. The rival's 500 epochs are all alike, so by default a few are timed, and one fold is
trained to the end for its score; ``--full`` runs it as it is, which takes a quarter of an hour on two cores.

The bound is the arithmetic: the floating-point operations of our matrices (the network's are counted by torch while it
trains; those of the experts and the rotation follow from the sizes), at the rate of the largest matrix product that
this machine was seen to do in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import official_recipe
import torch
from challenge_data import Challenge, challenge
from joblib import Parallel, delayed
from rows import Row, record
from sklearn.metrics import f1_score
from torch.utils.flop_counter import FlopCounterMode

from ecmf_lib import members
from ecmf_lib.train import FusionData, ModelSpec, fit_part, fold_seed, outer_folds
from ecmf_lib.training_part import TrainingPart
from ecmf_lib.workers import usable_cores

WIDTH, FOLDS, EPOCHS = 128, 5, 25
SPEC = ModelSpec("ECMF", "ecmf", options={"width": WIDTH})


def one_fold(data: FusionData, candidates: FusionData, fold: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A fold's own predictions and those of the candidates: probabilities."""
    model = fit_part(data, SPEC, np.asarray(data.speakers), fold != number, (0, number), EPOCHS)
    return model.predict(data.select(fold == number))[0], model.predict(candidates)[0]


def ours(task: Challenge, workers: int) -> tuple[float, list[np.ndarray], float]:
    """Seconds of everything, the candidates' probabilities of each fold, and the cross-validated weighted F1."""
    data = task.labelled
    start = time.perf_counter()
    fold = outer_folds(data, data.speakers, FOLDS, 0)
    jobs = (delayed(one_fold)(data, task.candidates, fold, number) for number in range(FOLDS))
    answers = Parallel(n_jobs=workers)(jobs)
    inside = np.zeros((len(data), len(data.classes)))
    for number, (own, _) in enumerate(answers):
        inside[fold == number] = own
    seconds = time.perf_counter() - start
    return seconds, [of_candidates for _, of_candidates in answers], weighted_f1(data, inside)


def weighted_f1(data: FusionData, scores: np.ndarray) -> float:
    return float(f1_score(data.labels, scores.argmax(1), average="weighted"))


# ------------------------------------------------------------------------------------------------ the arithmetic


def operations(task: Challenge) -> tuple[float, float]:
    """Floating-point operations of all five folds in single and in double precision, from the first fold."""
    data, epochs, real = task.labelled, [], members._inner_score
    fold = outer_folds(data, data.speakers, FOLDS, 0)
    part = TrainingPart(data.select(fold != 0), SPEC, fold_seed(0, 0), EPOCHS, None)
    members._inner_score = lambda *given: epochs.append(1) or real(*given)
    try:
        part.fitted()
    finally:
        members._inner_score = real
    part.epochs = 1
    with members.reproducible(0), FlopCounterMode(display=False) as counter:
        part._train(dict(SPEC.options))  # rotation and experts are there already; training and judging are counted
    n, candidates = len(part.data), len(task.candidates)
    network = counter.get_total_flops() * len(epochs)
    turning = sum(2 * (n + candidates) * dim * 256 + 2 * n * dim * 266 * 9 for dim in data.dims.values())
    folds, shrinkages = 5, 5
    experts = sum(
        2 * n * dim**2 / 2 + (folds * shrinkages + 1) * dim**3 / 3 + 2 * shrinkages * n * dim * 6
        for dim in data.dims.values()
    )
    return FOLDS * (network + turning), FOLDS * experts


def best_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product on all cores."""
    a, b = torch.randn(2, 3072, 3072, dtype=dtype)
    return 2 * 3072**3 / min(timed(lambda: a @ b) for _ in range(5))


def timed(step: Callable) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------ the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="run the rival's 5 × 100 epochs")
    parser.add_argument("--no-scores", action="store_true", help="time alone: do not train the rival's fold to the end")
    given = parser.parse_args()
    task, workers = challenge(), usable_cores()
    print(f"{len(task.labelled)} + {len(task.candidates)} clips, width {WIDTH}, {workers} cores; "
          f"best possible weighted F1 {task.ceiling:.3f}")  # fmt: skip
    Parallel(n_jobs=workers)(delayed(fold_seed)(0, i) for i in range(workers))  # processes that are there already
    rate, exact_rate = best_rate(torch.float32), best_rate(torch.float64)
    seconds, answers, inside = ours(task, workers)
    together = weighted_f1(task.candidates, np.mean([np.log(p) for p in answers], 0))
    print(f"ours: cross-validated {inside:.3f}, candidates {together:.3f}", flush=True)
    epochs = official_recipe.EPOCHS
    if given.full:
        theirs = official_recipe.run(task.labelled, task.candidates, width=WIDTH)
    else:
        theirs = official_recipe.run(
            task.labelled, task.candidates, width=WIDTH, folds=1, epochs=5 if given.no_scores else epochs
        )
    whole = theirs.seconds / theirs.epochs * epochs * FOLDS
    single, exact = operations(task)
    bound = single / rate + exact / exact_rate
    print(f"ours: {single / 1e12:.1f} TFLOP in single, {exact / 1e12:.2f} in double precision; this machine does "
          f"{rate / 1e9:.0f} and {exact_rate / 1e9:.0f} GFLOP/s", flush=True)  # fmt: skip
    what = "challenge: 7,369 clips in 5 folds + 20,000 predictions"
    timing = "" if given.full else f"the recipe's 500 epochs from {theirs.epochs} timed"
    rows = [
        Row(what, seconds, whole, "s", "official recipe", whole / seconds, "times faster", 15, note=timing),
        Row(f"{what}, arithmetic", seconds, bound, "s", "its operations at the best matrix product's rate",
            bound / seconds, "of the bound", note=f"{(single + exact) / 1e12:.1f} TFLOP"),
    ]  # fmt: skip
    if not given.no_scores:
        mine, folds = (together, "5 folds") if given.full else (weighted_f1(task.candidates, answers[0]), "fold 1 of 5")
        score = weighted_f1(task.candidates, theirs.logits)
        note = f"{folds}; best possible {task.ceiling:.3f}; the recipe reports {theirs.reported:.3f} of itself"
        rows.append(Row("challenge: weighted F1 on the candidates", mine, score, "", "official recipe", mine - score,
                        "more", 0, note=note))  # fmt: skip
    record(rows)


if __name__ == "__main__":
    main()
