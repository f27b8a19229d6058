"""What notebook 05 picks out and draws."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES

from ecmf_lib import study_predict
from ecmf_lib.bundle_files import BundleError, unseal, write_whole
from ecmf_lib.config import PredictSettings, SettingsError
from ecmf_lib.plots.predictions import class_shares
from ecmf_lib.study_predict import break_submission, damaged_copy, surest
from ecmf_lib.submit import check_submission, write_submission

SHARES = pd.DataFrame(
    [(name, of, share, round(100 * share)) for of in ("training labels", "new") for name, share in
     zip(CLASSES, (0.5, 0.3, 0.2) if of == "new" else (0.4, 0.4, 0.2), strict=True)],
    columns=["class", "of", "share", "clips"],
)  # fmt: skip


def test_shares_stand_side_by_side():
    ax = class_shares(SHARES)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.4, 0.4, 0.2, 0.5, 0.3, 0.2])
    middles = np.reshape([bar.get_x() + bar.get_width() / 2 for bar in ax.patches], (2, 3))
    assert (middles[0] < middles[1]).all() and np.allclose(middles.mean(0), [0, 1, 2])
    assert [text.get_text() for text in ax.get_xticklabels()] == list(CLASSES)
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="clips"):
        class_shares(SHARES.drop(columns="clips"))


def test_surest_and_least_sure_are_the_ends():
    chances = [0.9, 0.4, 0.7, 0.99, 0.5]
    table = pd.DataFrame({"id": list("abcde"), "predicted": "x", "p_x": chances, "p_y": 0.0, "w_s": 1.0})
    table.loc[5] = ["f", "", np.nan, np.nan, np.nan]
    found = surest(table, 2)
    assert found["id"].tolist() == ["d", "a", "e", "b"]
    assert found["why"].tolist() == ["surest"] * 2 + ["least sure"] * 2
    assert surest(table.iloc[:1])["id"].tolist() == ["a"] and surest(table.iloc[5:]).empty


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_broken_submission_has_problems_of_each_kind(tmp_path, n):
    names = [f"s{i}" for i in range(n)]
    good = write_submission(tmp_path / "good.csv", names, ["sad"] * n)
    break_submission(good, tmp_path / "broken.csv")
    said = " ".join(check_submission(tmp_path / "broken.csv", names)["problem"])
    assert all(word in said for word in ("did you mean 'sad'", "doubled", "not a candidate"))
    assert ("missing" in said) == (n > 2)


def test_a_copy_with_one_flipped_bit_is_refused(tmp_path):
    def fill(folder):
        (folder / "members/00").mkdir(parents=True)
        (folder / "members/00/model.json").write_text("{}", encoding="utf-8")
        (folder / "members/00/model.safetensors").write_bytes(b"weights")

    write_whole(tmp_path / "good", fill, {})
    unseal(tmp_path / "good")
    with pytest.raises(BundleError, match=r"00/model\.safetensors: its content was changed"):
        unseal(damaged_copy(tmp_path / "good", tmp_path / "copies"))


def test_self_training_without_unlabelled_clips_is_refused(monkeypatch):
    monkeypatch.setattr(study_predict, "train_bundle", lambda *_, **__: pytest.fail("trained all the same"))
    monkeypatch.setattr("ecmf_lib.study_labels.voters_of", lambda *_: [])
    project = SimpleNamespace(
        ledger=pd.DataFrame({"id": ["a"], "status": ["done"]}),
        corpus=SimpleNamespace(clips=pd.DataFrame({"id": ["a"], "split": ["labelled"]})),
    )
    case = SimpleNamespace(data=SimpleNamespace(ids=["a"], speakers=["s"], classes=CLASSES))
    with pytest.raises(SettingsError, match=r"labels = 'self-trained'.*no unlabelled clips"):
        study_predict.final_bundle(project, case, PredictSettings(labels="self-trained"))
