"""Label sources: who speaks, who abstains, what a csv may hold, and that no model judges what it was fitted on."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, changed, clips, one_hot, with_stream
from label_votes import silent

from ecmf_lib import sources
from ecmf_lib.config import ENRICHMENT
from ecmf_lib.fit import ModelSpec
from ecmf_lib.sources import FUSION, GIVEN, Judges, Source, by_family, digest, hard, language_model, people, read_source
from ecmf_lib.tables import CorpusError

IDS = ["c0", "c1", "c2", "c3"]


def by_name(found):
    return {source.name: source for source in found}


def write(tmp_path, text, name="mine.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ---- one source


def test_a_source_speaks_or_abstains_clip_by_clip():
    source = hard("a", [2, -1, 0], 3, "family")
    assert source.speaks.tolist() == [True, False, True] and source.says.tolist() == [2, -1, 0]
    assert source.family == "family" and hard("a", [0], 3).family == "a"
    assert source.select(np.array([2, 1])).says.tolist() == [0, -1]


@pytest.mark.parametrize("row", [[0.5, np.nan, 0.5], [1.5, -0.5, 0.0], [0.5, 0.5, 0.5], [np.inf, 0.0, 0.0]])
def test_what_is_no_distribution_is_refused(row):
    with pytest.raises(ValueError, match=r"'a': row 1 is .*no distribution"):
        Source("a", "a", [[1.0, 0.0, 0.0], row])
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Source("a", "a", [1.0, 0.0, 0.0])


def test_a_digest_tells_everything_apart():
    chances = np.array([[1.0, 0.0], [0.5, 0.5]])
    versions = [
        [Source("a", "a", chances)],
        [Source("b", "a", chances)],
        [Source("a", "b", chances)],
        [Source("a", "a", chances[::-1])],
        [Source("a", "a", [[1.0, 0.0], [np.nan, np.nan]])],
        [Source("a", "a", chances), Source("b", "a", chances)],
    ]
    assert len({digest(version) for version in versions}) == len(versions)
    assert digest(versions[0]) == digest([Source("a", "a", chances.copy())])


def test_a_family_is_the_mean_of_those_that_speak():
    one, two = [[1.0, 0.0], [0.6, 0.4], [np.nan, np.nan]], [[0.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]]
    found = by_family([Source("a", "f", one), Source("b", "g", two), Source("c", "f", two)])
    assert list(found) == ["f", "g"]
    np.testing.assert_allclose(found["f"].chances, [[0.5, 0.5], [0.6, 0.4], [np.nan, np.nan]])
    np.testing.assert_array_equal(found["g"].chances, two)


# ---- people


def table(**columns):
    return pd.DataFrame({"id": IDS, "label": ["angry", "happy", "happy", "neutral"]} | columns)


def test_without_annotators_the_given_label_speaks():
    (given,) = people(table(), CLASSES)
    assert given.name == GIVEN and given.says.tolist() == [1, 2, 2, 0]


def test_annotators_with_empty_cells_abstain_and_the_given_label_speaks_where_none_does():
    found = people(
        table(
            annotator_1=["angry", "", "neutral", ""],
            annotator_2=["", "", "happy", ""],
            annotator_3=["", "", "", ""],  # was asked nothing
        ),
        CLASSES,
    )
    assert {source.name: source.says.tolist() for source in found} == {
        GIVEN: [-1, 2, -1, 0],
        "annotator_1": [1, -1, 0, -1],
        "annotator_2": [-1, -1, 2, -1],
    }
    assert len({source.family for source in found}) == 3


def test_the_given_label_adds_nothing_where_annotators_saw_all():
    assert [source.name for source in people(table(annotator_1=["angry"] * 4), CLASSES)] == ["annotator_1"]
    assert [source.name for source in people(table(annotator_1=[""] * 4), CLASSES)] == [GIVEN]
    nobody = people(table().assign(label=""), CLASSES)
    assert [source.speaks.any() for source in nobody] == [False]


# ---- the language model


def enriched(**scores):
    rows = pd.DataFrame({"id": IDS[:3]})
    return rows.assign(**{f"score_{name}": scores.get(name, [0.0] * 3) for name in CLASSES})


def test_scores_of_the_language_model_become_chances_and_partly_missing_ones_abstain():
    found = enriched(neutral=[2.0, 0.5, 0.0], angry=[1.0, np.nan, 0.0], happy=[1.0, 0.5, 0.0])
    (source,) = language_model(found, ["c3", *IDS[:3]], CLASSES)
    assert source.family == "text"
    np.testing.assert_allclose(source.chances[1], [0.5, 0.25, 0.25])
    assert source.speaks.tolist() == [False, True, False, False]  # unlisted; partly NaN; all 0


def test_without_scores_there_is_no_language_model():
    assert language_model(None, IDS, CLASSES) == []
    assert language_model(enriched().drop(columns="score_happy"), IDS, CLASSES) == []
    assert language_model(enriched(), IDS, CLASSES) == []


# ---- a csv that a user adds


def test_a_csv_of_labels(tmp_path):
    path = write(tmp_path, "id,label,remark\nc2,happy,sure\nelsewhere,angry,\nc0,,\nc1,neutral,\n")
    source = read_source(path, IDS, CLASSES)
    assert (source.name, source.family) == ("mine", "mine")
    assert source.says.tolist() == [-1, 0, 2, -1]
    assert read_source(path, IDS, CLASSES, "text").family == "text"


def test_a_csv_of_scores(tmp_path):
    path = write(tmp_path, "happy,id,neutral,angry\n1,c3,3,0\n,c1,,\n9,elsewhere,0,0\n0.25,c0,0.25,0.5\n")
    source = read_source(path, IDS, CLASSES)
    np.testing.assert_allclose(source.chances[[0, 3]], [[0.25, 0.5, 0.25], [0.75, 0, 0.25]])
    assert source.speaks.tolist() == [True, False, False, True]


def test_a_csv_with_bad_labels_is_refused_with_all_rows(tmp_path):
    path = write(tmp_path, "id,label\nc0,Happy\nc1,happy\n\nc2,furious\nc1,angry\nother,ANGRY \n")
    with pytest.raises(CorpusError) as caught:
        read_source(path, IDS, CLASSES)
    problems = caught.value.problems
    assert problems[["row", "id", "column"]].to_numpy().tolist() == [
        [2, "c0", "label"], [5, "c2", "label"], [6, "c1", "id"], [7, "other", "label"],
    ]  # fmt: skip
    for said in (
        "mine.csv", "4 problem(s)", "row 2", "unknown label 'Happy'; did you mean 'happy'?",
        "unknown label 'furious'; classes are neutral, angry, happy, or leave", "duplicate id 'c1'",
        "unknown label 'ANGRY '; did you mean 'angry'?",
    ):  # fmt: skip
        assert said in str(caught.value)


def test_a_csv_with_bad_scores_is_refused_with_all_rows(tmp_path):
    rows = ["c0,0.1,0.9,0", "c1,much,0.1,0.1", "c2,-1,1,1", "c3,0,0,0", "x,0.5,,0.5", "y,inf,0,0", "z,nan,0,1", "w,,,"]
    path = write(tmp_path, "\n".join(["id,neutral,angry,happy", *rows]))
    with pytest.raises(CorpusError, match="scores must be numbers, 0 or more, not all 0") as caught:
        read_source(path, IDS, CLASSES)
    assert caught.value.problems["row"].tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("header", ["clip,label", "id,neutral,angry", "label,neutral,angry,happy"])
def test_a_csv_without_the_columns_is_refused(tmp_path, header):
    with pytest.raises(CorpusError, match="columns must be 'id' and 'label', or 'id' and neutral, angry, happy"):
        read_source(write(tmp_path, header + "\n" + "x," * header.count(",") + "x\n"), IDS, CLASSES)


# ---- models


def test_each_stream_and_their_fusion_judge_every_clip_they_have(rng):
    data = clips(rng, signal=2.5)
    found = by_name(sources.models(data, data.speakers, seed=0))
    assert list(found) == ["face", "audio", "noise", FUSION]
    assert all(source.family == name for name, source in found.items())
    for name in data.streams:
        assert (found[name].speaks == data.present[name]).all() and not found[name].speaks.all()
    right = {name: (source.says == data.labels)[source.speaks].mean() for name, source in found.items()}
    assert right["face"] > 0.8 and right[FUSION] > 0.9 and right["noise"] < 0.6


def test_enrichment_is_of_the_family_of_the_words(rng):
    data = clips(rng)
    data = changed(
        data,
        streams={"text": data.streams["face"], ENRICHMENT: data.streams["audio"]},
        present={"text": data.present["face"], ENRICHMENT: data.present["audio"]},
    )
    assert [source.family for source in sources.models(data, data.speakers, seed=0)] == ["text", "text", FUSION]


def test_no_model_judges_a_clip_that_it_was_fitted_on(rng):
    """With more features than clips everything is learned by heart: who peeks is right about random labels."""
    data = clips(rng, n=120, signal=0.0)
    data = changed(data, labels=rng.permutation(data.labels))
    data = with_stream(data, "noise", rng.normal(size=(120, 400)))
    found = by_name(sources.models(data, data.ids, seed=0))
    assert all((source.says == data.labels)[source.speaks].mean() < 0.5 for source in found.values())
    itself = Judges.fit(data, data.ids, seed=0).sources(data)
    assert (by_name(itself)["noise"].says == data.labels)[data.present["noise"]].mean() > 0.95  # the test would see it


def test_no_model_judges_a_speaker_that_it_was_fitted_on(rng):
    data = clips(rng, n=180, speakers=18, signal=0.0)
    data = changed(data, labels=np.array([int(s[1:]) % 3 for s in data.speakers]))
    right = {
        key: (sources.models(data, groups, seed=0)[-1].says == data.labels).mean()
        for key, groups in {"speaker": data.speakers, "clip": data.ids}.items()
    }
    assert right["speaker"] < 0.45 and right["clip"] > right["speaker"] + 0.2


def test_what_is_to_be_learned_counts_targets_and_weights(rng):
    data = clips(rng, signal=2.5)
    turned = changed(data, soft=one_hot((data.labels + 1) % 3))
    assert (sources.models(turned, data.speakers, seed=0)[-1].says == (data.labels + 1) % 3).mean() > 0.9
    wrong = rng.random(96) < 0.4
    noisy = changed(data, labels=np.where(wrong, (data.labels + 1) % 3, data.labels))
    one, other = (
        sources.models(version, data.speakers, seed=0)[-1].chances[np.arange(96), data.labels].mean()
        for version in (noisy, changed(noisy, weight=np.where(wrong, 0.0, 1.0)))
    )
    assert other > one + 0.1


@pytest.mark.parametrize("judge", ["models", "Judges"])
def test_a_stream_that_says_nothing_abstains(rng, judge):
    """A constant one has no opinion: it must not be taken to say the first class."""
    data = clips(rng)
    data = with_stream(data, "noise", np.ones((96, 4)))
    if judge == "models":
        found = sources.models(data, data.speakers, seed=0)
    else:
        found = Judges.fit(data, data.speakers, seed=0).sources(with_stream(data, "noise", rng.normal(size=(96, 4))))
    assert not by_name(found)["noise"].speaks.any() and by_name(found)["face"].speaks.sum() == 94


def test_another_fusion_can_stand_in_for_the_experts_sum(rng):
    data = clips(rng, signal=2.5)
    plain, other = (
        by_name(sources.models(data, data.speakers, seed=0, fusion=spec))
        for spec in (None, ModelSpec("l", "late-logistic"))
    )
    assert np.array_equal(plain["face"].chances, other["face"].chances, equal_nan=True)
    assert not np.allclose(plain[FUSION].chances, other[FUSION].chances)
    assert (other[FUSION].says == data.labels).mean() > 0.8


def test_judges_say_of_new_clips_what_they_learned_in_batches_of_any_size(rng):
    data = clips(rng, n=180, signal=2.5)
    judges = Judges.fit(data.select(np.arange(96)), data.speakers[:96], seed=0)
    new = data.select(np.arange(96, 180))
    whole, parts = judges.sources(new), judges.sources(new, batch=7)
    assert [source.name for source in whole] == ["face", "audio", "noise", FUSION]
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.speaks, other.speaks)
        np.testing.assert_allclose(one.chances, other.chances, atol=1e-6)
    assert (whole[-1].says == new.labels).mean() > 0.85
    other = judges.sources(changed(new, labels=new.labels * 0, soft=None, weight=np.zeros(84)))
    assert np.array_equal(other[-1].chances, whole[-1].chances)  # labels of what is judged are not looked at


def test_frame_level_streams_are_judged_by_their_mean(rng):
    data = clips(rng, steps=3)
    for found in (sources.models(data, data.speakers, seed=0), Judges.fit(data, data.speakers, seed=0).sources(data)):
        assert all(np.isfinite(source.chances[source.speaks]).all() for source in found)
        assert (by_name(found)["audio"].speaks == data.present["audio"]).all()


def test_silence_is_kept_by_select_and_family():
    nothing = silent("a", 3, 3)
    assert not nothing.select(np.arange(2)).speaks.any() and not by_family([nothing])["a"].speaks.any()


def test_what_is_heavy_is_imported_where_it_is_used_only():
    for path in Path(sources.__file__).parent.glob("*.py"):
        top = ast.parse(path.read_text(encoding="utf-8")).body
        named = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in named} & {"cleanlab", "crowdkit"}, path.name
