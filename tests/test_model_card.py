"""Cards say what the stored numbers say, name what is not known, and show names without obeying them."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from fusion_clips import clips

from ecmf_lib import card_text, study_predict
from ecmf_lib.bundle import Bundle, encoders_of, train_bundle
from ecmf_lib.bundle_files import BundleError
from ecmf_lib.card_text import plain, table
from ecmf_lib.corpus import make_corpus
from ecmf_lib.data_card import write_data_card
from ecmf_lib.evaluate import PredictionError, per_class, scores
from ecmf_lib.fit import ModelSpec
from ecmf_lib.group_scores import group_scores, speaker_scores, surest_mistakes, worst_pairs
from ecmf_lib.model_card import write_model_card

HOSTILE = "[x](javascript:alert(1))<img src=x onerror=alert(1)>|`a`\n# b"


def feature_set(dim):
    about = {"settings": {"encoder_fingerprint": "1" * 16}}
    return SimpleNamespace(encoder="made", level="clip", dim=dim, licence="CC0", about=about)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle's folder and what it says of clips that its members had not seen."""
    data = clips(np.random.default_rng(20251121))
    sets = {name: feature_set(dim) for name, dim in data.dims.items()}
    about = {"corpus": "made", "licence": "CC0", "labels": "given", "notes": [HOSTILE], "folds_hold_apart": "speaker"}
    spec = ModelSpec("late", "late-logistic", options={"C": 0.01})
    how = {"n_folds": 2, "seeds": (0, 1), "epochs": 2, "progress": False, "bootstrap": 50}
    bundle, said = train_bundle(data, spec, encoders=encoders_of(sets), about=about, **how)
    return bundle.save(tmp_path_factory.mktemp("card") / "mine"), said


@pytest.fixture(scope="module")
def voices(made):
    """Two groups, one of them with too few speakers for an interval; of one speaker nothing is known."""
    speakers = sorted(made[1]["speaker"].unique())
    return pd.DataFrame({"speaker": speakers[:-1], "voice": ["high"] * 5 + ["low"] * (len(speakers) - 6)})


def section(card: str, heading: str) -> str:
    return card.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_a_card_lies_beside_the_bundle_which_stays_whole(made, voices):
    folder, said = made
    path = write_model_card(folder, predictions=said, groups=voices, bootstrap=50)
    assert path == folder.with_name("mine-MODEL_CARD.md") and Bundle.load(folder)
    card = path.read_text(encoding="utf-8")
    assert f"weighted F1 {scores(said)['weighted_f1']:.3f}" in section(card, "What to expect of it")
    for name, row in per_class(said).iterrows():
        assert f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} |" in card
    groups = section(card, "By group")
    high = said[said["speaker"].isin(voices.loc[voices["voice"] == "high", "speaker"])]
    assert f"| voice | high | 5 | {len(high)} | {scores(high)['weighted_f1']:.3f} |" in groups
    assert "| voice | low | 2 |" in groups and "| – | – |" in groups and "| voice | not known | 1 |" in groups
    lowest = speaker_scores(said).iloc[0]
    assert f"| {lowest['speaker']} | {lowest['clips']} | {lowest['accuracy']:.3f} |" in section(card, "Where it fails")
    assert "AI Act" in card and Bundle.load(folder).digest in card


def test_what_is_not_known_is_said(made):
    card = write_model_card(made[0]).read_text(encoding="utf-8")
    assert "## By class" not in card and section(card, "Where it fails").strip() == "Not known."
    gaps = section(card, "Who is not in the data")
    assert "gender, age" in gaps and "No predictions were given" in gaps and "8 groups" in gaps


def test_without_speakers_nothing_is_said_of_them(made, tmp_path):
    bundle = Bundle.load(made[0])
    folder = replace(bundle, about=bundle.about | {"folds_hold_apart": "clip"}).save(tmp_path / "clips")
    card = write_model_card(folder, predictions=made[1]).read_text(encoding="utf-8")
    assert section(card, "By group").strip() == "Not known." and "fewest right answers" not in card
    assert "Who speaks is not known" in section(card, "Who is not in the data") and "commonest confusions" in card


def test_a_bundle_that_was_changed_gets_no_card(made, tmp_path):
    with pytest.raises(BundleError):
        write_model_card(tmp_path / "none")
    copy = study_predict.damaged_copy(made[0], tmp_path)
    with pytest.raises(BundleError, match="changed"):
        write_model_card(copy)
    assert not list(tmp_path.glob("*.md"))


def test_names_are_shown_and_do_nothing(made):
    card = write_model_card(made[0]).read_text(encoding="utf-8")
    line = next(line for line in card.splitlines() if "javascript" in line)
    assert r"\[x\](javascript:alert(1))\<img" in line and r"\n\# b" in line.replace("\\\\", "\\")
    assert not re.search(r"(?<!\\)[<|`]", line)
    assert plain("a" * 500).endswith("…") and len(plain("a" * 500)) == 200
    assert plain("demo_0001 _x_") == r"demo_0001 \_x\_"
    assert table(["a"], [[float("nan")], [0.5], [None]]).splitlines()[2:] == ["| – |", "| 0.500 |", "| – |"]


def test_limits_are_those_of_the_readme():
    readme = (REPO / "README.md").read_text(encoding="utf-8").split("## Responsible use")[1].split("\n## ")[0]
    assert " ".join(readme.split()).startswith(" ".join([card_text.USE, card_text.NOT_FOR, card_text.LIMITS]))


def test_failures_are_the_worst_first(made):
    said = pd.DataFrame(
        {
            "seed": 0,
            "id": list("abcdef"),
            "speaker": ["s", "s", "s", "t", "t", "t"],
            "label": ["x", "x", "x", "y", "y", "y"],
            "predicted": ["x", "y", "y", "y", "y", "x"],
            "p_x": [0.9, 0.3, 0.1, 0.2, 0.2, 0.8],
        }
    ).assign(p_y=lambda t: 1 - t["p_x"])
    assert speaker_scores(said)["speaker"].tolist() == ["s", "t"]
    pairs = worst_pairs(said)
    assert pairs[["label", "predicted", "clips"]].values.tolist() == [["x", "y", 2.0], ["y", "x", 1.0]]
    assert pairs["share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert surest_mistakes(said)["id"].tolist() == ["c", "f", "b"]
    perfect = said.assign(predicted=said["label"])
    assert worst_pairs(perfect).empty and surest_mistakes(perfect).empty


@pytest.mark.parametrize(
    "groups", [{"who": ["a"], "voice": ["low"]}, {"speaker": ["a"]}, {"speaker": ["a", "a"], "voice": ["low", "high"]}]
)
def test_groups_that_are_none_are_refused(made, groups):
    with pytest.raises(PredictionError, match="one row a speaker"):
        group_scores(made[1], pd.DataFrame(groups))


def test_groups_of_clips_count_too(made):
    camera = pd.DataFrame({"id": made[1]["id"], "camera": ["phone", "film"] * (len(made[1]) // 2)})
    found = group_scores(made[1], camera, n_boot=50).set_index("group")
    assert found["clips"].tolist() == [48, 48] and found["low"].notna().all()


def test_a_data_card_counts_what_is_there(tmp_path):
    clips = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "transcript": ["Hi."] * 4,
            "language": ["en", "en", "zh", ""],
            "label": ["happy", "sad", "happy", ""],
            "split": ["labelled"] * 3 + ["test"],
            "speaker": ["s", "s", "t", ""],
            "annotator_1": ["happy", "sad", "happy", ""],
            "annotator_2": ["happy", "happy", "", ""],
        }
    )
    left_out = pd.DataFrame({"id": ["e"], "reason": ["no | label"]})
    corpus = make_corpus("mine", tmp_path, clips, left_out=left_out, licence="CC0")
    ledger = pd.DataFrame(
        {
            "status": ["done", "done", "done", "failed"],
            "reason": ["", "", "", "cut short"],
            "duration": [2.0, 4.0, np.nan, np.nan],
            "face_share": [1.0, 0.0, np.nan, np.nan],
            "audio_state": ["ok", "silent", "", ""],
        }
    )
    project = SimpleNamespace(corpus=corpus, ledger=ledger, data_fingerprint="f" * 16)
    groups = pd.DataFrame({"speaker": ["s"], "gender": ["f"]})
    card = write_data_card(project, tmp_path / "DATA_CARD.md", groups=groups).read_text(encoding="utf-8")
    assert "| labelled | happy | 2 | 2 |" in card and "| test | (none) | 1 | 0 |" in card
    assert "2 speakers are named, for 3 of 4 clips" in card and "en (2), zh (1), not stated (1)" in card
    assert "same answer for 50%" in card and "all agree on 50%" in card
    assert "2.0 to 4.0 s" in card and "in no frame of 1 clips" in card and "ok (1), silent (1), none (1)" in card
    assert "| failed | cut short | 1 |" in card and r"| left out | no \| label | 1 |" in card
    assert "| f | 1 | 2 |" in card and "| not known | 1 | 1 |" in card
    gaps = section(card, "Who is not in the data")
    assert (
        "angry (0)" in gaps and "other than en, zh" in gaps and "age, first language" in gaps and "gender" not in gaps
    )
