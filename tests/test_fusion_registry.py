"""A fusion of one's own is trained like those of the package; what could not be is refused when it is registered."""

import copy

import numpy as np
import pytest
import torch
from fusion_clips import changed, clips
from torch import nn

from ecmf_lib import fusion, fusion_registry
from ecmf_lib.bundle import Bundle, train_bundle
from ecmf_lib.bundle_files import BundleError
from ecmf_lib.evaluate import scores
from ecmf_lib.fit import ModelSpec
from ecmf_lib.fusion_base import Dropout, Fusion, clip_level, without_weights
from ecmf_lib.fusion_registry import code_of, register
from ecmf_lib.train import cross_validate

# As from a notebook, whose cells no worker process can import: classes of no module that exists.
_NOTEBOOK = {"__name__": "a_notebook"}
CELL = '''
class Strongest(Fusion):
    """Each number of the fused token is that of the stream that has most of it."""

    def __init__(self, dims, n_classes, *, width=16, dropout=0.5):
        super().__init__(dims, n_classes)
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        self.classify, self.drop = nn.Linear(width, n_classes), Dropout(dropout)

    def forward(self, streams, present):
        tokens = [torch.relu(p(clip_level(x))) for p, x in zip(self.project, self.inputs(streams))]
        return without_weights(self.classify(self.drop((torch.stack(tokens, 1) * present[..., None]).amax(1))))
'''
QUICK = {"inner": 3, "batch": 32}


def from_cell(text: str) -> type[Fusion]:
    """The class that a notebook cell defines."""
    space = _NOTEBOOK | {"Fusion": Fusion, "nn": nn, "torch": torch, "Dropout": Dropout}
    space |= {"clip_level": clip_level, "without_weights": without_weights}
    code = compile(text, "<cell>", "exec")
    exec(code, space)
    return space["Strongest"]


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is not there for the next."""
    yield
    for name in list(fusion_registry._OWN):
        del fusion_registry._OWN[name], fusion.FUSIONS[name]


def test_it_is_trained_in_worker_processes_that_have_not_seen_the_cell(rng):
    data = clips(rng)
    register("strongest", from_cell(CELL))
    spec = ModelSpec("strongest", "strongest", options=QUICK)
    how = {"n_folds": 2, "epochs": 8, "progress": False}
    alone = cross_validate(data, spec, workers=1, **how)
    assert scores(alone)["weighted_f1"] > 0.5
    there = cross_validate(data, spec, workers=2, **how)
    np.testing.assert_allclose(there.filter(regex="^p_"), alone.filter(regex="^p_"), atol=1e-6)


def test_kept_folds_are_those_of_its_code(rng, tmp_path):
    data, how = clips(rng, n=48), {"n_folds": 2, "epochs": 1, "progress": False, "folder": tmp_path}
    register("strongest", from_cell(CELL))
    spec = ModelSpec("mine", "strongest", options=QUICK)
    cross_validate(data, spec, **how)
    register("strongest", from_cell("\n\n" + CELL))  # moved down by two lines: the same code
    cross_validate(data, spec, **how)
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    register("strongest", from_cell(CELL.replace("amax(1)", "sum(1)")))
    cross_validate(data, spec, **how)
    assert len(list(tmp_path.glob("*.parquet"))) == 4


def test_constants_defaults_and_bases_are_its_code_too():
    codes = []
    for text in (CELL, CELL.replace("width=16", "width=8"), CELL.replace("torch.relu", "torch.sigmoid")):
        register("strongest", from_cell(text))
        codes.append(code_of("strongest"))
    register("strongest", type("Strongest", (from_cell(CELL.replace("relu", "tanh").replace("amax", "sum")),), {}))
    assert len({*codes, code_of("strongest")}) == 4


def test_kinds_of_the_package_keep_their_keys():
    assert "code" not in ModelSpec("ECMF", "ecmf").about() and ModelSpec("a", "stacked").about()["kind"] == "stacked"


def test_a_bundle_of_it_needs_it_registered(rng, tmp_path):
    data = clips(rng, n=48)
    data = changed(data, streams={"face": data.streams["face"]}, present={"face": data.present["face"]})
    register("strongest", from_cell(CELL))
    encoders = {"face": {"name": "made", "fingerprint": "0", "settings": {}}}
    spec = ModelSpec("mine", "strongest", options=QUICK)
    how = {"n_folds": 2, "epochs": 1, "progress": False, "bootstrap": 50}
    bundle, _ = train_bundle(data, spec, encoders=encoders, about={}, **how)
    folder = bundle.save(tmp_path / "bundle")
    np.testing.assert_array_equal(Bundle.load(folder).predict(data)[0], bundle.predict(data)[0])
    del fusion_registry._OWN["strongest"], fusion.FUSIONS["strongest"]
    with pytest.raises(BundleError, match=r"'strongest'.*register"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["ecmf", "stacked", "LMF", "Mine", "", "a/b", 3])
def test_a_name_that_is_taken_or_none_is_refused(name):
    before = dict(fusion.FUSIONS)
    if name == "LMF":
        name = "lmf"
        assert name in fusion.FUSIONS
    with pytest.raises(ValueError, match=r"of that name|a name has"):
        register(name, from_cell(CELL))
    assert before == fusion.FUSIONS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("* present[..., None]", "* 1"), "missing stream"),
        (("(clip_level(x))", "(x)"), r"\[batch, steps, dim\]"),
        (("Dropout(dropout)", "nn.Dropout(dropout)"), "fusion_base.Dropout"),
        (("nn.Linear(width, n_classes)", "nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, n_classes))"), "Layer"),
        (("return without_weights(", "return ("), "FusionOutput"),
        (("amax(1)", "amax(1)[:, :3]"), "RuntimeError"),
        (("(torch.stack(tokens, 1) *", "(torch.stack(tokens, 1) / present.sum(1)[:, None, None] *"), "NaN"),
        (("width=16", "width"), "TypeError"),
        (
            ("return without", "if tokens[0].max() > 0: tokens = tokens[:]\n        return without"),
            "vmap|data-dependent",
        ),
    ],
)
def test_what_could_not_be_trained_is_refused_at_once(change, said):
    assert change[0] in CELL
    with pytest.raises(ValueError, match=said):
        register("strongest", from_cell(CELL.replace(*change)))
    assert "strongest" not in fusion.FUSIONS


def test_no_fusion_at_all_is_refused():
    with pytest.raises(ValueError, match="no subclass"):
        register("strongest", nn.Linear)


def test_the_rivals_of_the_package_would_pass():
    """The check asks for nothing that our own do not keep."""
    for name, kind in copy.copy(fusion.FUSIONS).items():
        assert fusion_registry._problem(kind) == "", name
