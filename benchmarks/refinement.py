"""Refinement, self-training and the submission at challenge size: time and peak memory.

Run with ``python benchmarks/refinement.py [--labelled 7369] [--unlabelled 124802] [--candidates 20000]``.

Features are generated: each class has a centre, each clip lies around its own, and a fifth of the labels is wrong. What
is measured is time and memory; the share of wrong labels before and after stands beside them because a fast wrong
answer would be none. The bound of memory is the features themselves, which are held once.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib import noise
from ecmf_lib.config import EMOTIONS
from ecmf_lib.refine import refine
from ecmf_lib.samples import FusionData
from ecmf_lib.self_training import Rounds, self_train
from ecmf_lib.sources import Judges
from ecmf_lib.submit import check_submission, write_submission

DIMS = {"face": 1024, "text": 768, "audio": 1024}


def generated(n: int, seed: int, centres: dict[str, np.ndarray], prefix: str) -> tuple[FusionData, np.ndarray]:
    """n clips with features around their class's centre, and their true classes."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, len(EMOTIONS), n)
    streams = {}
    for name, dim in DIMS.items():
        x = rng.standard_normal((n, dim), dtype=np.float32)
        x += centres[name][true]
        streams[name] = x
    here = {name: np.ones(n, bool) for name in DIMS}
    speakers = [f"{prefix}{i % max(n // 20, 2)}" for i in range(n)]
    return FusionData([f"{prefix}{i:06d}" for i in range(n)], streams, here, true, speakers, EMOTIONS), true


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labelled", type=int, default=7369)
    parser.add_argument("--unlabelled", type=int, default=124_802)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = {name: 0.06 * rng.standard_normal((len(EMOTIONS), dim), dtype=np.float32) for name, dim in DIMS.items()}
    labelled, true = generated(given.labelled, 1, centres, "train_")
    others, hidden = generated(given.unlabelled, 2, centres, "new_")
    nothing = np.zeros(len(others))
    others = replace(others, labels=nothing.astype(np.int64), weight=nothing)
    wrong = noise.inject("class-dependent", true, len(EMOTIONS), 0.2, np.random.default_rng(3))
    labelled = replace(labelled, labels=wrong)
    held = sum(x.nbytes for part in (labelled, others) for x in part.streams.values())
    rows, start = [], time.perf_counter()

    def done(step: str, told: str) -> None:
        nonlocal start
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows.append({"step": step, "seconds": round(now - start, 1), "peak GB": round(peak / 1e9, 2), "result": told})
        print(rows[-1], flush=True)
        start = now

    done("generated", f"features {held / 1e9:.2f} GB")
    refined = refine(labelled, seed=0)
    done("refine", f"wrong labels {np.mean(wrong != true):.3f} -> {np.mean(refined.labels != true):.3f}")
    part = refined.apply(labelled)
    trained = self_train(part, part.speakers, others, seed=0, rounds=Rounds(most=given.rounds))
    place = {clip: i for i, clip in enumerate(others.ids)}
    pseudo = trained.pseudo
    true_of = [EMOTIONS[hidden[place[clip]]] for clip in pseudo["id"]]
    right = float((pseudo["label"] == true_of).mean())
    chosen = int(trained.rounds.loc[trained.rounds["chosen"], "round"].iloc[0])
    told = f"{len(pseudo)} clips after round {chosen}, {right:.3f} of them right"
    done(f"self-training, {given.rounds} rounds", told)
    candidates = others.select(np.arange(min(given.candidates, len(others))))
    judge = Judges.fit(trained.data, trained.groups, seed=0)
    said = np.array(EMOTIONS)[judge.sources(candidates)[-1].says]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        write_submission(path, candidates.ids, said.tolist())
        problems = check_submission(path, candidates.ids)
    done("submission", f"{len(candidates)} rows, {len(problems)} problems")
    print(f"\n{os.cpu_count()} cores; {given.labelled + given.unlabelled} clips; peak is the process's, so far")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
