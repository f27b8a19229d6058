"""Stand-ins are checkpoints in the real format: whole, found as the user's own, the same from the same seed."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from ecmf_lib.encoders import stand_ins
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.encoders.weights import find

ONE_A_FAMILY = list({card.family: card.name for card in CARDS.values()}.values())


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))  # digests of weights are remembered there


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_a_stand_in_is_found_says_what_it_is_and_follows_its_seed(tmp_path, name):
    card = CARDS[name]
    digests = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        written = stand_ins.write(card, tmp_path / folder, seed=seed)
        assert written == tmp_path / folder / name
        found = find(card, tmp_path / folder)
        assert found.origin == "your folder" and found.path in (written, written / "model.onnx") and found.stand_in
        digests.append(found.digest)
    assert digests[0] == digests[1] != digests[2]
    if found.path.is_dir():
        assert json.loads((written / "config.json").read_text())["ecmf_stand_in"] is True
        weights = load_file(written / "model.safetensors")
        assert sum(array.size for array in weights.values()) < 12e6 and all(
            np.isfinite(a).all() for a in weights.values()
        )
    else:
        assert {prop.key for prop in onnx.load(found.path).metadata_props} == {"ecmf_stand_in"}


def test_writing_leaves_the_callers_random_numbers_alone(tmp_path):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    stand_ins.write(CARDS["clip-b32"], tmp_path)
    stand_ins.write(CARDS["affect-vit"], tmp_path)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("name", ["siglip2-b32", "clip-l14", "affect-vit", "videomae-base", "dinov3-large"])
def test_the_real_size_is_that_of_the_card(tmp_path, name, monkeypatch):
    """The form alone: written without numbers."""
    import torch
    import transformers
    from timm import models

    built = []
    monkeypatch.setattr(models, "save_for_hf", lambda model, folder, **_: built.append(model))
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", lambda model, folder: built.append(model))
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    with torch.device("meta"):
        stand_ins.write(CARDS[name], tmp_path, size="real")
    (model,) = built
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert abs(millions - CARDS[name].parameters) < 0.02 * CARDS[name].parameters
    assert CARDS[name].width in (
        getattr(model, "num_features", 0),
        getattr(model.config, "hidden_size", 0) if hasattr(model, "config") else 0,
    )
