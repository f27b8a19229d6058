"""Refinement and self-training see the training part alone: a marker planted in the tested clips changes nothing.

What a marker is: other labels, other votes, other noise, other soft labels and weights of the tested clips. What must
stay the same, to the last bit: targets, weights and pseudo-labels that a model is fitted on, and what it then says of
the tested clips. Each marker is also planted in the training part, where it must be seen; and a step that does leak is
caught.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from fusion_clips import CLASSES, NEURAL, changed, clips, one_hot

from ecmf_lib import self_training, train
from ecmf_lib.consensus import METHODS
from ecmf_lib.fit import ModelSpec
from ecmf_lib.refine import ADOPT, Refiner, Rule
from ecmf_lib.self_training import Rounds, SelfTrainer
from ecmf_lib.sources import Source, hard
from ecmf_lib.study_refine import WithNoise

EXPERTS = ModelSpec("linear experts", "linear-experts")
ECMF = ModelSpec("ECMF", "ecmf", options=NEURAL)
SURE = Rule(doubt=0.5)
ROUNDS = Rounds(most=1, confidence=0.34, families=1)


@dataclass(frozen=True)
class Known:
    """Everything about labels that a step could see: of the labelled clips, and clips without any."""

    data: object  # FusionData, its labels noisy
    truth: np.ndarray
    scores: np.ndarray  # of a language model
    unlabelled: object

    def voters(self):
        """People, somebody who knows the truth, and a language model."""
        data = self.data
        return (
            hard("given", data.labels, 3),
            hard("oracle", self.truth, 3),
            Source("language model", "text", self.scores),
        )


@pytest.fixture
def known(rng):
    data = clips(rng, n=150, speakers=10, signal=1.2)
    rest = data.select(np.arange(96, 150))
    rest = changed(rest, labels=np.zeros(54, int), weight=np.zeros(54))
    data = data.select(np.arange(96))
    noisy = np.where(rng.random(96) < 0.25, (data.labels + 1) % 3, data.labels)
    return Known(changed(data, labels=noisy), data.labels, rng.dirichlet(np.ones(3), 96), rest)


@pytest.fixture
def tested(known):
    """Clips of the fold that is tested, its speakers apart: bool [n]."""
    return train.grouped_folds(known.data.labels, known.data.speakers, 4) == 2


def planted(known, rows):
    """The same with markers at these rows."""
    data, n = known.data, len(known.data)
    at = np.asarray(rows)[:, None]
    marked = changed(
        data,
        labels=np.where(rows, (data.labels + 1) % 3, data.labels),
        soft=np.where(at, one_hot((data.labels + 2) % 3), one_hot(data.labels)),
        weight=np.where(rows, 7.0, 1.0),
    )
    return Known(
        marked, np.where(rows, (known.truth + 1) % 3, known.truth), np.where(at, [[0.1, 0.1, 0.8]] * n, known.scores),
        known.unlabelled,
    )  # fmt: skip


def refiner(known, **how):
    return Refiner(known.voters(), tuple(known.data.ids), **({"rule": SURE} | how))


def with_noise(known, then):
    return WithNoise(tuple(known.data.ids), (known.truth + np.arange(len(known.truth)) % 2) % 3, then)


def trainer(known, first):
    return SelfTrainer(known.unlabelled, tuple(known.data.speakers), first, ROUNDS)


#: Step → what makes it of what is known.
STEPS = {
    "given labels refined": lambda known: Refiner(rule=SURE),
    "doubt chosen": lambda known: refiner(known, rule=Rule()),
    "softened": lambda known: refiner(known, rule=Rule(doubt=0.7, otherwise="soften")),
    "ecmf as a source": lambda known: refiner(known, fusion=ECMF, rounds=1),
    "self-trained": lambda known: trainer(known, None),
    "refined, self-trained": lambda known: trainer(known, refiner(known)),
    "noisy": lambda known: with_noise(known, None),
    "noisy, refined": lambda known: with_noise(known, Refiner(rule=SURE)),
    "noisy, refined, self-trained": lambda known: with_noise(known, trainer(known, refiner(known))),
} | {method: lambda known, method=method: refiner(known, method=method, rule=ADOPT) for method in METHODS}
every_step = pytest.mark.parametrize("step", STEPS)


@pytest.fixture
def outcome(monkeypatch):
    """Cross-validates, and gives what the last model was fitted on beside the predictions."""
    parts, real = [], train.fit
    monkeypatch.setattr(train, "fit", lambda part, *args, **named: parts.append(part) or real(part, *args, **named))

    def run(known, step, spec=EXPERTS, **how):
        table = train.cross_validate(known.data, spec, prepare=step, progress=False, epochs=2, **how)
        return parts[-1], table

    return run


@pytest.fixture
def eager(monkeypatch):
    """Every round is used, whatever its honest score, so that there are pseudo-labels to look at."""
    real = self_training._honest_rounds

    def rising(*args):
        return [found | {"honest": turn} for turn, found in enumerate(real(*args))]

    monkeypatch.setattr(self_training, "_honest_rounds", rising)


CHANCES = [f"p_{name}" for name in CLASSES]


# ---- (a) labels and votes of the tested clips


@every_step
def test_labels_votes_and_noise_of_the_tested_clips_change_nothing(known, tested, outcome, eager, step):
    split = {"test_fold": np.where(tested, 0, -1)}
    versions = [planted(known, rows) for rows in (tested & False, tested, ~tested)]
    (base, marked, seen), tables = zip(
        *(outcome(version, STEPS[step](version), **split) for version in versions), strict=True
    )
    assert not set(base.ids) & set(tables[0]["id"]) and (len(base) > (~tested).sum()) == ("self-trained" in step)
    assert base.fingerprint() == marked.fingerprint()
    assert np.array_equal(tables[0][CHANCES], tables[1][CHANCES])
    assert (tables[0]["label"] != tables[1]["label"]).all()  # the marker was planted in what is scored against
    # Planted in the training part it is seen.
    assert not np.array_equal(base.targets(), seen.targets())
    assert not np.array_equal(tables[0][CHANCES], tables[2][CHANCES])


def test_ecmf_itself_does_not_see_them_either(known, tested, outcome):
    """Nor does the choice of how many rounds there are."""
    split = {"test_fold": np.where(tested, 0, -1), "spec": ECMF}
    versions = [planted(known, rows) for rows in (tested & False, tested)]
    steps = [trainer(version, refiner(version)) for version in versions]
    (base, marked), tables = zip(*(outcome(v, s, **split) for v, s in zip(versions, steps, strict=True)), strict=True)
    assert base.fingerprint() == marked.fingerprint() and np.array_equal(tables[0][CHANCES], tables[1][CHANCES])


def test_a_step_that_leaks_is_caught(known, tested, outcome):
    """As would refinement of all labels before cross-validation, or pseudo-labels of models that saw all."""
    split = {"test_fold": np.where(tested, 0, -1)}

    @dataclass(frozen=True)
    class RefinedBefore:
        labels: np.ndarray

        def __call__(self, part, groups, *, seed, epochs):
            return changed(part, soft=one_hot(self.labels[[known.data.ids.index(clip) for clip in part.ids]])), groups

        def about(self):
            return []

    runs = []
    for version in (planted(known, tested & False), planted(known, tested)):
        whole = refiner(version).refined(version.data, version.data.speakers, seed=0)
        runs.append(outcome(version, RefinedBefore(whole.labels), **split))
    (base, one), (marked, other) = runs
    assert base.fingerprint() != marked.fingerprint() and not np.array_equal(one[CHANCES], other[CHANCES])


def test_features_of_the_tested_clips_change_nothing_that_is_fitted(known, tested, outcome, eager):
    """A column that tells the label of the tested clips, and of them only, is of no use to anybody."""
    split = {"test_fold": np.where(tested, 0, -1)}
    data, column = known.data, np.where(tested, 10.0 * (1 + known.truth), 0.0)[:, None]
    told = {name: np.concatenate([x, column], axis=1) for name, x in data.streams.items()}
    blank = {name: np.concatenate([x, column * 0], axis=1) for name, x in data.streams.items()}
    rest = known.unlabelled
    rest = changed(rest, streams={name: np.pad(x, ((0, 0), (0, 1))) for name, x in rest.streams.items()})
    versions = [Known(changed(data, streams=x), known.truth, known.scores, rest) for x in (blank, told)]
    (base, marked), tables = zip(*(outcome(v, trainer(v, refiner(v)), **split) for v in versions), strict=True)
    assert base.fingerprint() == marked.fingerprint() and len(base) > (~tested).sum()
    assert np.array_equal(tables[0][CHANCES], tables[1][CHANCES])


def test_unlabelled_clips_of_tested_speakers_change_nothing(known, tested, outcome, eager):
    """Else a tested speaker would be no new one."""
    split = {"test_fold": np.where(tested, 0, -1)}
    rest, speakers = known.unlabelled, np.array(known.data.speakers)
    theirs = np.isin(rest.speakers, speakers[tested])
    assert 5 < theirs.sum() < 49
    runs = []
    for rows in (theirs & False, theirs, ~theirs):
        x = {name: np.where(rows[:, None], 3 + 2 * x, x) for name, x in rest.streams.items()}
        version = Known(known.data, known.truth, known.scores, changed(rest, streams=x))
        runs.append(outcome(version, trainer(version, refiner(version)), **split))
    (base, one), (marked, other), (seen, _) = runs
    assert base.fingerprint() == marked.fingerprint() != seen.fingerprint()
    assert np.array_equal(one[CHANCES], other[CHANCES])
    assert not set(base.speakers) & set(one["speaker"])


# ---- (b) what is scored against


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("doubt chosen", *METHODS)])
def test_refined_and_pseudo_labels_never_get_into_what_is_scored(known, outcome, eager, step):
    """Each labelled clip is scored once, on the label it was given; nobody else is."""
    table = outcome(known, STEPS[step](known), EXPERTS, n_folds=2)[1]
    assert sorted(table["id"]) == known.data.ids
    given = dict(zip(known.data.ids, np.array(CLASSES)[known.data.labels], strict=True))
    assert (table["label"] == table["id"].map(given)).all()
    speakers = dict(zip(known.data.ids, known.data.speakers, strict=True))
    assert (table["speaker"] == table["id"].map(speakers)).all()


# ---- (c) a voter who knows the truth


@pytest.mark.parametrize("method", METHODS)
def test_a_voter_who_knows_the_truth_of_one_fold_does_not_help_in_it(known, outcome, method):
    """In the folds that learn from those clips, it does."""
    data, ids = known.data, tuple(known.data.ids)
    fold = train.outer_folds(data, data.speakers, 3, 0)
    rule = ADOPT if method != "em" else SURE
    tables = []
    for knows in (fold < 0, fold == 1):
        told = np.where(knows, known.truth, -1)  # twice, so that it outvotes whoever errs
        voters = (hard("oracle", told, 3), hard("given", data.labels, 3), hard("second oracle", told, 3))
        table = outcome(known, Refiner(voters, ids, method, rule=rule), n_folds=3)[1]
        tables.append(table.set_index("id").loc[data.ids])
    same = (tables[0][CHANCES] == tables[1][CHANCES]).all(axis=1).to_numpy()
    assert (tables[0]["fold"] == fold).all() and same[fold == 1].all()
    assert not same[fold != 1].all()
