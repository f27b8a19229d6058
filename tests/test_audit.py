"""The audit table is shown without running anything; a human decides in a csv, is understood or refused, and wins."""

import base64
import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecmf_lib import audit
from ecmf_lib.audit import ReviewError
from ecmf_lib.review_csv import guarded, unguarded
from ecmf_lib.tables import read_csv

CLASSES = ("neutral", "happy", "sad")
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
ROWS = [  # id, given, refined, action, confidence, weight, families, says of voice and face
    ("007", "happy", "happy", "keep", 0.9, 1.0, 2, "happy", "happy"),
    ("a_1", "happy", "sad", "relabel", 0.95, 1.0, 2, "sad", "sad"),
    ("b_2", "sad", "sad", "drop", 0.2, 0.0, 1, "sad", ""),
    ("c_3", "neutral", "neutral", "soften", 0.4, 1.0, 1, "happy", "neutral"),
    ("d_4", "", "sad", "relabel", 0.97, 0.5, 2, "sad", "sad"),
]
EXACT_IDS = [
    "007", "1e5", "-5", "'007", "''007", "=1+1", "'=1+1", "+49", "@me", "MARCH1", "1-2", "true", "03-01-05", "语音；=1",
    "a,b", "it's; =x", "x;'=1", "样本_00001", "1.500", "+'=-", "=\t@ 'x", "don't", "'",
]  # fmt: skip


def table(rows=ROWS):
    columns = ["id", "given", "refined", "action", "confidence", "weight", "families", "says_voice", "says_face"]
    made = pd.DataFrame(rows, columns=columns)
    made["agree"] = [", ".join(s for s in ("voice", "face") if r[f"says_{s}"] == r.refined) for _, r in made.iterrows()]
    made["why"] = "two independent families say so"
    for name in CLASSES:
        made[f"soft_{name}"] = (made["refined"] == name).astype(float)
    return made


def decided(path, decisions, **changes):
    """Write decisions (id → decision or (decision, note)) into the file as a careful human would."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        said = decisions.get(unguarded(row["id"], name=True), "")
        row["decision"], row["note"] = said if isinstance(said, tuple) else (said, row["note"])
    with path.open("w", encoding=changes.get("encoding", "utf-8-sig"), newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=changes.get("delimiter", ","), lineterminator="\r\n")
        file.write(changes.get("before", ""))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def review(tmp_path):
    return audit.write_review(table(), tmp_path / "out" / "review.csv", transcripts={"a_1": "我没事", "b_2": "=1+1"})


# --- what goes to a spreadsheet and comes back ---------------------------------------------------------------------


def test_review_lists_what_changed_the_most_surprising_first(review):
    raw = review.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf"), "without BOM Excel shows no Chinese"
    found = read_csv(review)
    assert list(found) == [
        "id", "transcript", "given", "refined", "action", "confidence", "why", "decision", "note"
    ]  # fmt: skip
    assert found["id"].tolist() == ["a_1", "b_2", "c_3", "d_4"] and found["transcript"][0] == "我没事"
    assert (found[["decision", "note"]] == "").all(axis=None)
    everything = audit.write_review(table(), review.with_name("all.csv"), only_changed=False)
    assert len(read_csv(everything)) == 5


@pytest.mark.parametrize("text", [*EXACT_IDS, " =1", "\t=1", "a\n=1", 'x"=1', "’=’", "a;\t'=b", "＝1", "", "-- 'tis"])
@pytest.mark.parametrize("name", [True, False])
def test_guards_are_undone_exactly(text, name):
    assert unguarded(guarded(text, name=name), name=name) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1", "x;=1+1", 'x";=1', "x\t=1", "a,-1"]
)
def test_no_cell_is_a_formula_whatever_the_separator(text):
    cells = next(csv.reader(io.StringIO(guarded(text), newline=""), quoting=csv.QUOTE_NONE))
    cells = [part for cell in cells for part in re.split('[;,\t\r\n|"]', cell)]
    assert not any(re.match(r"\s*[=+\-@＝＋－＠]", cell) for cell in cells)


def test_ids_survive_a_spreadsheet_exactly(tmp_path):
    rows = [(name, "happy", "sad", "relabel", 0.9, 1.0, 1, "sad", "") for name in EXACT_IDS]
    made = table(rows)
    path = audit.write_review(made, tmp_path / "review.csv")
    for line in read_csv(path)["id"]:
        assert not re.match(r"[\d=+\-@.]|MARCH|true", line), "a spreadsheet program would convert it"
    found = audit.read_review(decided(path, dict.fromkeys(EXACT_IDS, "drop")), made, CLASSES)
    assert found["id"].tolist() == EXACT_IDS and set(found["decision"]) == {"drop"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"encoding": "utf-8"},
        {"encoding": "gbk"},
        {"delimiter": ";", "before": "sep=;\r\n", "encoding": "gbk"},
    ],
)
def test_reads_what_spreadsheet_programs_write(review, changes):
    decisions = {"a_1": ("happy", "is; smiling, 真的"), "c_3": " drop "}
    found = audit.read_review(decided(review, decisions, **changes), table(), CLASSES)
    assert found.to_dict("records") == [
        {"id": "a_1", "decision": "happy", "note": "is; smiling, 真的"},
        {"id": "c_3", "decision": "drop", "note": ""},
    ]


def test_reads_a_file_that_people_wrote_by_hand(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("note,decision,id\n,sad,007\n,,a_1\n\n")
    assert audit.read_review(path, ["007", "a_1"], CLASSES)["id"].tolist() == ["007"]


def refused(tmp_path, content, known=None):
    path = tmp_path / "mine.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReviewError) as caught:
        audit.read_review(path, table() if known is None else known, CLASSES)
    return caught.value


def test_every_bad_row_is_named(tmp_path):
    error = refused(
        tmp_path,
        "id,decision,note\na_1,Happy,\n7,sad,\nb_2,angry,\n\nc_3,keep,\nc_3,keep,\nd_4,keep,\n,sad,\na_1,Drop,x\n",
    )
    rows = {(p.row, p.column): p.problem for p in error.problems.itertuples()}
    assert set(rows) == {
        (2, "decision"), (3, "id"), (4, "decision"), (7, "id"), (8, "decision"), (9, "id"), (10, "id"),
        (10, "decision"),
    }  # fmt: skip
    assert "written 'happy'" in rows[2, "decision"] and "written 'drop'" in rows[10, "decision"]
    assert "numbers or dates" in rows[3, "id"] and "neutral, happy, sad, keep, drop, or nothing" in rows[4, "decision"]
    assert "row 6 already" in rows[7, "id"] and "no given label" in rows[8, "decision"]
    assert "mine.csv row 4, decision (clip 'b_2')" in str(error) and isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,note\na_1,x\n", "no column 'decision'.*its columns are: id, note"),
        ("id,decision,decision,note\n", "2 columns 'decision'"),
        ("", "no column 'id'"),
        ('id,decision,note\n"a_1,sad\n', "not a csv table"),
    ],
)
def test_files_that_are_no_review_are_refused(tmp_path, content, words):
    assert re.search(words, str(refused(tmp_path, content)))


def test_a_file_that_is_not_there_and_a_class_called_keep(tmp_path, review):
    with pytest.raises(ReviewError, match="cannot be read"):
        audit.read_review(tmp_path / "none.csv", table(), CLASSES)
    with pytest.raises(ReviewError, match="a class is called 'keep'"):
        audit.read_review(review, table(), ("keep", "sad"))


def test_writing_again_loses_nobodys_work(review):
    decided(review, {"a_1": ("happy", "=smiles"), "c_3": ("", "to ask")})
    found = audit.read_review(review, table(), CLASSES)
    after = audit.apply_review(table(), found, CLASSES)
    audit.write_review(after, review)
    assert audit.read_review(review, table(), CLASSES).equals(found)
    again = read_csv(review).set_index("id")
    assert again.loc["c_3", "note"] == "to ask" and again.loc["a_1", "note"] == "'=smiles"
    before = review.read_bytes()
    with pytest.raises(ReviewError, match=r"2 clip\(s\) that this audit does not have"):
        audit.write_review(table(ROWS[:1]), review)
    assert review.read_bytes() == before
    review.write_text("shopping list\nmilk\n")
    with pytest.raises(ReviewError, match="no column 'id'"):
        audit.write_review(table(), review)
    assert review.read_text().startswith("shopping")


# --- a human's decision wins ----------------------------------------------------------------------------------------


def decisions(*rows):
    return pd.DataFrame(rows, columns=["id", "decision", "note"])


def test_decisions_win_and_are_recorded():
    before = table()
    said = decisions(("a_1", "keep", ""), ("b_2", "happy", "she laughs"), ("c_3", "drop", ""), ("007", "", "?"))
    after = audit.apply_review(before, said, CLASSES, families={"voice": "audio", "face": "picture"})
    assert before.equals(table()), "the table that was given stays"
    assert list(after) == list(before) and after["id"].tolist() == before["id"].tolist()
    clips = after.set_index("id")
    assert clips.loc[["a_1", "b_2", "c_3"], "action"].tolist() == ["human"] * 3
    assert clips.loc["a_1", ["refined", "weight", "confidence"]].tolist() == ["happy", 1.0, 1.0]
    assert clips.loc["a_1", ["families", "agree"]].tolist() == [0, ""], "no source said what the human says"
    assert clips.loc["a_1", ["soft_neutral", "soft_happy", "soft_sad"]].tolist() == [0, 1, 0]
    assert clips.loc["b_2", ["refined", "weight", "why"]].tolist() == [
        "happy",
        1.0,
        "a human decided: happy (she laughs)",
    ]
    assert clips.loc["c_3", ["refined", "weight", "why"]].tolist() == ["neutral", 0.0, "a human decided: drop"]
    untouched = before["id"].isin(["007", "d_4"])
    pd.testing.assert_frame_equal(after[untouched], before[untouched], check_dtype=False)


@pytest.mark.parametrize(("families", "count"), [(None, 1), ({"voice": "x", "face": "x"}, 1), ({}, 2)])
def test_families_that_agree_with_the_human_are_counted(families, count):
    rows = [("a_1", "happy", "happy", "keep", 0.5, 1.0, 0, "sad", "sad")]
    after = audit.apply_review(table(rows), decisions(("a_1", "sad", "")), CLASSES, families=families)
    assert after.loc[0, "families"] == count and after.loc[0, "agree"] == "voice, face"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("x", "sad", ""), "row 1, id .clip 'x'.: no such clip"),
        (("a_1", "Sad", ""), "written 'sad'"),
        (("d_4", "keep", ""), "no given label"),
    ],
)
def test_decisions_that_cannot_be_applied_are_refused(said, words):
    with pytest.raises(ReviewError, match=words):
        audit.apply_review(table(), decisions(said), CLASSES)


def test_other_tables_are_refused():
    with pytest.raises(ReviewError, match="no column 'note'"):
        audit.apply_review(table(), decisions().drop(columns="note"), CLASSES)
    with pytest.raises(ReviewError, match="no column soft_angry"):
        audit.apply_review(table(), decisions(), (*CLASSES, "angry"))
    with pytest.raises(ReviewError, match="no column why"):
        audit.summary(table().drop(columns="why"))
    with pytest.raises(ReviewError, match="'a_1' is in it twice"):
        audit.summary(table([ROWS[1], ROWS[1]]))
    with pytest.raises(ReviewError, match="unknown action 'Drop'"):
        audit.shown(table().assign(action="Drop"))


# --- what people see -------------------------------------------------------------------------------------------------


def test_summary_counts_actions_of_each_given_label():
    found = audit.summary(table()).set_index("class")
    assert list(found.index) == ["neutral", "happy", "sad", "(none)"]
    assert found["clips"].tolist() == [1, 2, 1, 1]
    assert found.loc["happy", ["keep", "relabel", "drop", "human"]].tolist() == [1, 1, 0, 0]
    assert found["refined"].tolist() == [1, 1, 2, 0], "a dropped clip is nobody's"


def test_surprise_is_what_is_lost_for_the_given_label():
    assert audit.surprise(table()).round(2).tolist() == [0.1, 0.95, 0.8, 0.6, 0.0]


def test_hostile_words_are_shown_and_not_run():
    made = table().assign(why=HOSTILE, says_voice=HOSTILE)
    made = made.rename(columns={"says_face": f"says_{HOSTILE}"})
    made.loc[1, ["id", "given"]] = HOSTILE
    html = audit.shown(made, transcripts=[HOSTILE] * 5).data
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)") >= 12
    assert (
        "<script" not in html
        and "<img" not in html
        and not re.search(r"\son\w+=[^&]*>", re.sub("&lt;.*?&gt;", "", html))
    )
    tags = set(re.findall(r"</?([a-z0-9]+)", html))
    assert tags <= {
        "div",
        "style",
        "label",
        "input",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "small",
        "b",
        "br",
        "bdi",
    }


def test_shown_puts_changes_first_and_can_be_sorted_without_script():
    html = audit.shown(table(), top=4, name="changes").data
    rows = re.findall(r'<tr style="([^"]+)">(.*?)</tr>', html)
    ids = [re.search("<bdi>(.*?)</bdi>", row)[1] for _, row in rows]
    assert ids == ["a_1", "b_2", "c_3", "d_4"], "by surprise, and the one that was kept is left out"
    places = [dict(part.split(":") for part in style.split(";")) for style, _ in rows]
    orders = re.findall(r"<label><input [^>]*>(.*?)</label>", html)
    assert orders == ["surprise", "clip", "given label", "refined label", "action", "sure"]
    sure = sorted(range(4), key=lambda row: int(places[row]["--o5"]))
    assert [ids[row] for row in sure] == ["d_4", "a_1", "c_3", "b_2"]
    assert all(sorted(int(p[key]) for p in places) == [0, 1, 2, 3] for key in places[0])
    assert "4 of 5 clips, of which 4 were changed" in html and "http" not in html
    assert html.count("#changes:has(#changes-o") == 6
    with pytest.raises(ValueError, match="unique on the page"):
        audit.shown(table(), name="a b")


def test_shown_says_who_voted_for_what():
    html = audit.shown(table(), top=4).data
    assert "<b>sad</b> (2 families): voice, face" in html and "<b>sad</b> (1 family): voice<br>abstains: face" in html
    assert "happy → <b>sad</b>" in html and "no label → <b>sad</b>" in html


@pytest.mark.parametrize("form", ["mapping", "sequence", "function"])
def test_pictures_are_small_and_of_their_clips(form):
    reds = {row[0]: np.full((90, 320, 3), (40 * k, 0, 0), np.uint8) for k, row in enumerate(ROWS)}
    reds["c_3"] = None
    asked = []
    given = {
        "mapping": reds,
        "sequence": list(reds.values()),
        "function": lambda clip: asked.append(clip) or reds[clip],
    }
    html = audit.shown(table(), given[form], top=3).data
    found = [Image.open(io.BytesIO(base64.b64decode(text))) for text in re.findall('base64,([^"]+)', html)]
    assert [image.size for image in found] == [(96, 27)] * 2
    assert [image.getpixel((5, 5)) for image in found] == [(40, 0, 0), (80, 0, 0)]
    assert asked == ([] if form != "function" else ["a_1", "b_2", "c_3"]), "no other clip is decoded"


def test_pictures_that_are_none_and_lists_of_another_length():
    with pytest.raises(ValueError, match="expected uint8"):
        audit.shown(table(), {"a_1": np.zeros((4, 4))})
    with pytest.raises(ValueError, match="2 pictures or transcripts for 5 clips"):
        audit.shown(table(), transcripts=["a", "b"])


def test_an_audit_of_nothing(tmp_path):
    nothing = table()[:0]
    assert audit.summary(nothing)["clips"].sum() == 0
    assert "0 of 0 clips" in audit.shown(nothing).data
    path = audit.write_review(nothing, tmp_path / "review.csv")
    assert audit.read_review(path, nothing, CLASSES).empty
    assert audit.apply_review(nothing, decisions(), CLASSES).empty
