"""Where words may mislead: rules that see cues, not labels."""

import pandas as pd
import pytest
from test_explore_text import LOW, OWN, POSITIVE, project_of

from ecmf_lib import misleading
from ecmf_lib.cues import Cues

NEGATIVE = "words sound negative (VADER -0.40)"
LONG = "What a truly lovely day this has turned out to be."


@pytest.mark.parametrize(
    ("cues", "rule"),
    [
        (Cues("x", "Fine.", voice=LOW[:1], words=("words sound positive (VADER +0.20)",)), misleading.BARE),
        (Cues("x", "So that is how it is.", voice=LOW[:1]), misleading.BARE),
        (Cues("x", "Yeah.", context=(("A", "It died."),)), misleading.BARE),
        (Cues("x", "你在这里呀。", face=("smiles more" + OWN,)), misleading.BARE),
        (Cues("x", "我好紧张，怕会出事。", voice=LOW[:1]), None),
        (Cues("x", "Fine."), None),
        (Cues("x", "", voice=LOW), None),
        (Cues("x", LONG, voice=LOW[:1]), None),
        (Cues("x", LONG, voice=LOW, words=(POSITIVE,)), misleading.AGAINST),
        (Cues("x", LONG, voice=("much louder", "voice sharper and tenser"), words=(POSITIVE,)), misleading.AGAINST),
        (Cues("x", LONG, voice=LOW, face=("smiles more" + OWN,), words=(POSITIVE,)), None),
        (Cues("x", LONG, voice=LOW, words=(NEGATIVE,)), None),
        (Cues("x", LONG, face=("smiles much more" + OWN,), words=(NEGATIVE,)), misleading.AGAINST),
        (Cues("x", LONG, "en", words=(POSITIVE,), context=(("A", "I hate you, it is horrible."),)), misleading.TURN),
        (Cues("x", LONG, "en", words=(POSITIVE,), context=(("A", "The bus stops here."),)), None),
    ],
)
def test_rules_find_clips_whose_words_may_mislead(cues, rule):
    assert misleading.candidates([cues])["rule"].tolist() == ([rule] if rule else [])


def test_clips_with_most_cues_come_first():
    cues = [
        Cues("a", "Well, now.", voice=LOW[:1]),
        Cues("b", "Well.", voice=LOW[:1]),
        Cues("c", "So it is.", voice=LOW),
    ]
    found = misleading.candidates(cues)
    assert found["id"].tolist() == ["c", "b", "a"]
    assert found["because"][0] == "quieter; pitch moves much less"


def test_a_tone_heard_by_the_model_is_a_reason():
    cues = [Cues("a", LONG), Cues("b", LONG)]
    enriched = pd.DataFrame({"id": ["a", "b"], "tone": ["sincere", "ironic"]})
    assert misleading.candidates(cues, enriched).values.tolist() == [["b", misleading.TONE, "tone: ironic"]]


def test_changed_shows_labelled_clips_first_and_predictions_of_those_that_have_one():
    cues = [Cues(one, "Well.", voice=LOW * n) for one, n in zip("abc", (3, 2, 1), strict=True)]
    project = project_of(cues, label=["sad", "", "happy"], split=["test", "unlabelled", "labelled"])
    runs = {"words": predictions({"c": ("happy", "sad")}), "all": predictions({"c": ("happy", "happy")})}
    found = misleading.candidates(cues)
    table = misleading.changed(project, found, runs, n=2)
    assert table[["id", "label", "words", "all"]].values.tolist() == [["c", "happy", "sad", "happy"], ["a", "", "", ""]]
    right = misleading.right_by_rule(found, runs).set_index("rule")
    assert right.loc[misleading.BARE].tolist() == [1, 0, 1]
    assert right.loc["none of these", "clips"] == 0


def predictions(guesses):
    rows = [
        {"seed": 0, "id": i, "speaker": "s", "label": right, "predicted": guess}
        for i, (right, guess) in guesses.items()
    ]
    return pd.DataFrame(rows)
