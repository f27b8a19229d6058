"""Submissions: exactly the candidates, and every problem of a file named with its row."""

import time

import pytest

from ecmf_lib.config import EMOTIONS
from ecmf_lib.submit import SubmissionError, candidates, check_submission, shown, write_submission

NAMES = ["s1", "s2", "s3", "s4", "s5"]
GOOD = "name,discrete\ns1,happy\ns2,sad\ns3,angry\ns4,neutral\ns5,worried\n"


def problems(tmp_path, content, names=NAMES):
    path = tmp_path / "submission.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    table = check_submission(path, names)
    assert list(table.columns) == ["row", "name", "problem"]
    return [(row.row, row.name, row.problem) for row in table.itertuples(index=False)]


def only(found, row, name, *words):
    assert [(r, n) for r, n, _ in found] == [(row, name)], found
    assert all(word in found[0][2] for word in words), found[0][2]


@pytest.mark.parametrize("content", [GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD + "\n\n", GOOD.rstrip()])
def test_a_good_one_has_no_problems(tmp_path, content):
    assert problems(tmp_path, content) == []


def test_the_order_of_rows_is_free(tmp_path):
    header, *rows = GOOD.splitlines()
    assert problems(tmp_path, "\n".join([header, *rows[::-1]])) == []


def test_a_missing_candidate(tmp_path):
    only(problems(tmp_path, GOOD.replace("s3,angry\n", "")), 0, "s3", "missing")


def test_an_extra_name(tmp_path):
    only(problems(tmp_path, GOOD + "s9,happy\n"), 7, "s9", "not a candidate")


def test_a_doubled_row_names_the_first(tmp_path):
    only(problems(tmp_path, GOOD + "s2,happy\n"), 7, "s2", "doubled", "row 3")


@pytest.mark.parametrize(
    "label, meant", [("hapy", "happy"), ("Happy", "happy"), ("SURPRISE", "surprise"), ("surprised", "surprise")]
)
def test_a_misspelt_label_is_named_with_what_was_meant(tmp_path, label, meant):
    only(problems(tmp_path, GOOD.replace("happy", label)), 2, "s1", repr(label), f"did you mean '{meant}'?")


@pytest.mark.parametrize("label", ["2", "joy", "快乐"])
def test_an_unknown_label_is_answered_with_those_there_are(tmp_path, label):
    only(problems(tmp_path, GOOD.replace("happy", label)), 2, "s1", *EMOTIONS)


def test_a_misspelt_name_is_named_with_what_was_meant(tmp_path):
    names = ["sample_00000012", "sample_00000013"]
    found = problems(tmp_path, "name,discrete\nsample_0000012,sad\nSample_00000013,sad\n", names)
    assert [(row, name) for row, name, _ in found[:2]] == [(2, "sample_0000012"), (3, "Sample_00000013")]
    assert "'sample_00000012'?" in found[0][2] and "'sample_00000013'?" in found[1][2]
    assert [(row, name) for row, name, _ in found[2:]] == [(0, "sample_00000012"), (0, "sample_00000013")]


def test_a_file_ending_is_seen_through(tmp_path):
    found = problems(tmp_path, GOOD.replace("s1,", "s1.mp4,"))
    assert "did you mean 's1'?" in found[0][2]


def test_empty_cells(tmp_path):
    found = problems(tmp_path, "name,discrete\ns1,\n,sad\ns2,sad\ns3,angry\ns4,neutral\ns5,worried\n,\n")
    assert [(row, problem) for row, _, problem in found] == [
        (2, "discrete: the cell is empty"),
        (3, "name: the cell is empty"),
        (8, "name: the cell is empty"),
        (8, "discrete: the cell is empty"),
    ]


@pytest.mark.parametrize("cell", [" s1,happy", "s1 ,happy", "s1, happy", "s1,happy ", "s1,\u00a0happy", '"s1\n",happy'])
def test_blanks_around_a_cell(tmp_path, cell):
    only(problems(tmp_path, GOOD.replace("s1,happy", cell)), 2, cell.split(",")[0].strip('"'), "blanks")


@pytest.mark.parametrize("odd, code", [("\0", "U+0000"), ("\u200b", "U+200B"), ("\x07", "U+0007")])
def test_characters_that_cannot_be_seen(tmp_path, odd, code):
    found = problems(tmp_path, GOOD.replace("s1,happy", f"s1,hap{odd}py"))
    only(found, 2, "s1", code)


def test_all_columns_wrong(tmp_path):
    assert "'name'" in problems(tmp_path, GOOD.replace("name,discrete", "Name,Discrete"))[0][2]
    found = problems(tmp_path, GOOD.replace("name,discrete", "name,emotion"))
    assert {row for row, _, _ in found} == {1} and any("no column 'discrete'" in p for _, _, p in found)
    assert any("separator" in p for _, _, p in problems(tmp_path, GOOD.replace(",", ";")))
    found = problems(tmp_path, "discrete,name\nhappy,s1\nsad,s2\nangry,s3\nneutral,s4\nworried,s5\n")
    only(found, 1, "", "wrong order")


def test_a_column_too_many_and_rows_of_other_lengths(tmp_path):
    found = problems(tmp_path, "name,discrete,valence\ns1,happy,1\ns2,sad,1\ns3,angry,1\ns4,neutral,1\ns5,worried,1\n")
    only(found, 1, "", "'valence'", "nothing else")
    only(problems(tmp_path, GOOD.replace("s2,sad", "s2,sad,0.9")), 3, "s2", "3 cells")
    only(problems(tmp_path, GOOD.replace("name,discrete", "name,discrete,discrete"))[:1], 1, "", "twice")


def test_a_header_that_is_missing_is_no_row_that_is_lost(tmp_path):
    found = problems(tmp_path, GOOD.partition("\n")[2])
    assert any("no column 'name'" in problem for _, _, problem in found)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file(tmp_path, content):
    only(problems(tmp_path, content), 0, "", "empty")


def test_other_encodings_and_what_else_is_wrong_with_them(tmp_path):
    found = problems(tmp_path, GOOD.replace("s2,sad", "s2,sé").encode("cp1252"))
    assert [(row, name) for row, name, _ in found] == [(3, ""), (3, "s2")] and "UTF-8" in found[0][2]
    only(problems(tmp_path, GOOD.encode("utf-16")), 0, "", "UTF-16")


def test_a_quote_that_is_not_closed_ends_the_check_and_says_so(tmp_path):
    found = problems(tmp_path, GOOD.replace("s3,angry", 's3,"angry'))
    only(found, 4, "", "close every quote", "not looked at")


def test_every_problem_at_once(tmp_path):
    content = "name,discrete\ns1,Happy\ns1,sad\ns2, sad\nsX,angry\ns4,\n"
    found = problems(tmp_path, content)
    assert [(row, name) for row, name, _ in found] == [
        (2, "s1"),
        (3, "s1"),
        (4, "s2"),
        (5, "sX"),
        (6, "s4"),
        (0, "s3"),
        (0, "s5"),
    ]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SubmissionError, match="cannot be read"):
        check_submission(tmp_path / "none.csv", NAMES)


# ---- at challenge size


def test_twenty_thousand_candidates_are_checked_fast(tmp_path):
    names = [f"sample_{i:08d}" for i in range(20_000)]
    path = write_submission(tmp_path / "submission.csv", names, ["sad"] * len(names))
    start = time.perf_counter()
    assert check_submission(path, names).empty
    assert time.perf_counter() - start < 2
    rows = [f"x{name},joy" for name in names]  # every name and every label wrong
    path.write_text("\n".join(["name,discrete", *rows]), encoding="utf-8")
    start = time.perf_counter()
    assert len(check_submission(path, names)) == 60_000
    assert time.perf_counter() - start < 6


# ---- writing


def test_written_in_the_order_of_the_candidates(tmp_path):
    path = write_submission(tmp_path / "deep/submission.csv", ["s2", "s1"], ["sad", "happy"], candidates=["s1", "s2"])
    assert path.read_bytes() == b"name,discrete\ns1,happy\ns2,sad\n"
    assert [p.name for p in path.parent.iterdir()] == ["submission.csv"]


def test_names_with_commas_and_quotes_come_back(tmp_path):
    names = ["a,b", 'c"d', "=1+1", "名字"]
    path = write_submission(tmp_path / "s.csv", names, ["sad"] * 4)
    assert check_submission(path, names).empty


@pytest.mark.parametrize(
    "names, labels, said",
    [
        (["s1"], ["sad"], "s2: missing"),
        (["s1", "s2", "s3"], ["sad"] * 3, "s3: not a candidate"),
        (["s1", "s2", "s2"], ["sad"] * 3, "doubled"),
        (["s1", "s2"], ["sad", "Sad"], "row 3, s2: .*'sad'"),
        (["s1", "s2"], ["sad", ""], "empty"),
    ],
)
def test_what_makes_no_submission_is_not_written(tmp_path, names, labels, said):
    path = tmp_path / "submission.csv"
    path.write_text("older", encoding="utf-8")
    with pytest.raises(SubmissionError, match=said) as error:
        write_submission(path, names, labels, candidates=["s1", "s2"])
    assert len(error.value.problems) and path.read_text(encoding="utf-8") == "older"


# ---- candidates


@pytest.mark.parametrize("content", ["name\ns1\ns2\n", "\ufeffname\r\ns1\r\ns2\r\n", "index,name\n0,s1\n1,s2\n"])
def test_candidates_in_the_order_of_the_file(tmp_path, content):
    path = tmp_path / "candidates.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert candidates(path) == ["s1", "s2"]


@pytest.mark.parametrize(
    "content, said",
    [
        ("clip\ns1\n", "no column 'name'"),
        ("name\n", "no candidates"),
        ("", "empty"),
        ("name\ns1\ns2\ns1\n", "row 4, s1: stands in row 2"),
        ("name,x\ns1,1\n,2\n", "row 3"),
        ("name\ns1 \n", "blanks"),
        ("name\ns\x001\n", r"U\+0000"),
        ("name;discrete\ns1;\n", "separator"),
    ],
)
def test_candidate_lists_that_cannot_be_used(tmp_path, content, said):
    path = tmp_path / "candidates.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SubmissionError, match=said):
        candidates(path)


def test_a_candidate_list_in_another_encoding_or_place(tmp_path):
    (tmp_path / "c.csv").write_bytes("name\nsé\n".encode("cp1252"))
    with pytest.raises(SubmissionError, match="UTF-8"):
        candidates(tmp_path / "c.csv")
    with pytest.raises(SubmissionError, match="cannot be read"):
        candidates(tmp_path / "none.csv")


def test_what_a_terminal_is_shown_cannot_steer_it():
    assert shown("名字") == "名字" and "\x1b" not in shown("a\x1b[2Jb")
