"""Negation, degree, exclamation, question, laughter and valence, in English and in Chinese."""

import pytest

from ecmf_lib.cues_words import lexical_cues


@pytest.mark.parametrize(
    ("text", "cue"),
    [
        ("I don’t know.", "negation: don't"),  # the typographic apostrophe that MELD has
        ("No, never!", "negation: no, never"),
        ("That is really, really bad", "intensifier: really"),
        ("It is kind of nice", "softener: kind of"),
        ("Oh my God, he's here", "interjection: oh my god"),
        ("hahaha you are funny", "laughter"),
        ("Nooooo", "stretched: Nooooo"),
        ("I am NOT going", "capitals: NOT"),
        ("Stop!", "exclamation"),
        ("Stop!!", "several exclamation marks"),
        ("You did what?", "question"),
        ("Well… maybe", "hesitation or trailing off (...)"),
        ("I hate this horrible day", "words sound clearly negative (VADER -0.80)"),
        ("我不知道", "negation: 不"),
        ("我沒有說謊", "negation: 沒有"),
        ("今天真开心", "intensifier: 真"),
        ("我有点累", "softener: 有点"),
        ("天哪，下雪了", "interjection: 天哪"),
        ("哈哈哈，好笑", "laughter"),
        ("你好吗", "question"),
        ("你是不是生气了", "question"),
        ("太好了！", "exclamation"),
    ],
)
def test_cue_is_found_and_the_language_told_from_the_script(text, cue):
    assert cue in lexical_cues(text)


@pytest.mark.parametrize(
    "text",
    ["We keep the spare paper on the shelf.", "这个不错", "不过他是别人", "你是不是他", "最后一页", "太太在看太阳"],
)
def test_words_that_only_look_like_cues(text):
    assert not [cue for cue in lexical_cues(text) if cue.startswith(("negation", "intensifier"))]


def test_valence_follows_negation():
    (good,) = lexical_cues("I am happy", "en")
    *_, bad = lexical_cues("I am not happy", "en")
    assert "positive" in good and "negative" in bad


def test_the_manifests_language_decides_where_it_is_given():
    assert lexical_cues("no never", "de") == ()
    assert lexical_cues("Nein!", "de") == ("exclamation",)
    assert lexical_cues("no", "en-GB") and lexical_cues("不", "zh-CN") and lexical_cues("不", "yue")


def test_all_capitals_is_a_way_of_writing_not_shouting():
    assert not [cue for cue in lexical_cues("I AM GOING HOME", "en") if cue.startswith("capitals")]


@pytest.mark.parametrize("text", ["", "   ", "…", "\x00\x1b[31m", "🙂" * 50, "a" * 20_000, "不" * 20_000, "ha " * 7000])
def test_odd_texts_give_short_cues(text):
    cues = lexical_cues(text)
    assert all(len(cue) < 100 and cue.isprintable() for cue in cues)
