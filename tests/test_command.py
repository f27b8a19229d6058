"""The command as people and scripts meet it: help, typos, completion, JSON, exit codes, and the page about it."""

import json
import re
import shlex

import pytest
import typer
from conftest import REPO
from typer.testing import CliRunner

from ecmf_lib.commands.options import EXITS
from ecmf_lib.commands.page import page
from ecmf_lib.commands.talk import answering, plain
from ecmf_lib.commands.words import label_files, parameters, shares
from ecmf_lib.config import FuseSettings, PredictSettings, SettingsError
from ecmf_lib.run import COMMANDS, app

COMMAND = typer.main.get_command(app)


def run(*words, **more):
    return CliRunner().invoke(app, list(words), **more)


def words_of(text: str) -> str:
    """Without the boxes and line breaks of a terminal."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


# ---- help


def test_the_commands_of_the_plan_are_there():
    asked = {"doctor", "demo", "fetch", "extract", "enrich", "train", "refine", "predict", "submit", "report"}
    assert asked <= set(COMMANDS) == set(COMMAND.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_can_be_run_as_they_stand(name):
    said = run(name, "--help")
    assert said.exit_code == 0
    _, examples = COMMANDS[name]
    assert examples
    for example in examples:
        assert example in words_of(said.output), "an example is not shown"
        first, second, *rest = shlex.split(example)
        assert (first, second) == ("ecmf", name)
        COMMAND.commands[name].make_context(name, rest)  # raises for what the command does not know


def test_an_option_means_the_same_everywhere():
    meanings = {}
    for name, command in COMMAND.commands.items():
        for option in command.params:
            if option.param_type_name == "option":
                meanings.setdefault(option.opts[0], {})[name] = option.help
    apart = {"--profile", "--encoder", "--output", "--bundle"}  # fetch names encoders; train writes what others read
    for option, said in meanings.items():
        if option not in apart:
            assert len(set(said.values())) == 1, f"{option}: {said}"
    assert set(meanings["--json"]) >= {"doctor", "extract", "train", "refine", "predict", "submit", "demo", "enrich"}
    for option in ("--set", "--profile", "--encoder", "--weights", "--llm", "--workers", "--engine", "--share"):
        assert set(meanings[option]) >= {"extract", "enrich", "train", "refine", "report"}, option


def test_the_page_is_that_of_the_program():
    told = (REPO / "docs/command.md").read_text(encoding="utf-8")
    assert told == page(), "python -m ecmf_lib.commands.page > docs/command.md"
    assert all(f"| {status} | {meaning} |" in told for status, meaning in EXITS.items())
    assert all(f"\n## `ecmf {name}`\n" in told for name in COMMANDS)


def test_it_says_its_version():
    assert re.fullmatch(r"ecmf \d+\.\d+\.\d+\n", run("--version").output)


# ---- typos


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("extrct demo", "extract"),
        ("extract demo --profil light", "--profile"),
        ("extract demo --set detctor=lbp", "detector"),
        ("extract demo --profile lihgt", "light"),
        ("extract demo --encoder audio=egemap", "egemaps"),
        ("extract demo --encoder audo=egemaps", "audio"),
    ],
)
def test_what_is_nearly_right_is_answered_with_what_was_meant(line, meant):
    said = run(*shlex.split(line))
    assert said.exit_code == 2
    assert re.search(f"(did you mean|Possible options:|Did you mean) ?'?{meant}", words_of(said.output)), said.output


def test_what_is_nowhere_near_gets_the_list():
    said = run("extract", "demo", "--set", "xyzzy=1")
    assert said.exit_code == 2 and "did you mean" not in said.output and "trials" in said.output


# ---- completion


def test_shells_get_a_script():
    for shell, word in (("bash", "complete -o default"), ("zsh", "#compdef ecmf"), ("fish", "complete --command ecmf")):
        said = run(prog_name="ecmf", env={"_ECMF_COMPLETE": f"source_{shell}"})
        assert said.exit_code == 0 and word in said.output and "_ECMF_COMPLETE" in said.output, shell


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ecmf ref", {"refine"}),
        ("ecmf extract --prof", {"--profile"}),
        ("ecmf extract --profile b", {"base"}),
        ("ecmf train --set see", {"seed=", "seeds="}),
        ("ecmf report --notebook 04", {"04_refine_labels"}),
    ],
)
def test_the_shell_completes(typed, offered):
    env = {"_ECMF_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert set(run(prog_name="ecmf", env=env).output.split()) == offered


# ---- for scripts


def test_json_is_all_that_stdout_has(tmp_path):
    said = run("demo", str(tmp_path / "made"), "--clips", "6", "--workers", "1", "--json")
    assert json.loads(said.stdout) == {"folder": str(tmp_path / "made"), "clips": 6, "seed": 0}
    assert "demo corpus" in said.stderr
    plain_words = run("demo", str(tmp_path / "made"), "--clips", "6", "--workers", "1")
    assert plain_words.stdout.startswith("demo corpus: ")


def test_a_refusal_is_json_too(tmp_path):
    said = run("check", str(tmp_path / "nowhere"), "--json")
    assert said.exit_code == 2 and set(json.loads(said.stdout)) == {"error"}
    assert "nowhere" in json.loads(said.stdout)["error"] and "nowhere" in said.stderr


def test_a_manifest_is_checked_for_scripts(tmp_path):
    (tmp_path / "manifest.csv").write_text("id,label,transcript,speaker\na,happy,Hi,ann\nb,sad,Oh,bob\n")
    told = json.loads(run("check", str(tmp_path), "--json").stdout)
    assert told["clips"] == 2 and told["folds_hold_apart"] == "speaker"
    assert {"split": "labelled", "label": "happy", "clips": 1} in told["counts"]


def test_the_doctor_answers_scripts():
    said = run("doctor", "--offline", "--json")
    told = json.loads(said.stdout)
    assert told["encoders"]["audio"] == "egemaps" and told["cores"] > 0
    assert said.exit_code == (0 if told["can_run"] else 1) and told["can_run"] == (not told["problems"])


def test_a_submission_is_checked_for_scripts(tmp_path):
    (tmp_path / "names.csv").write_text("name\na\nb\n")
    (tmp_path / "sent.csv").write_text("name,discrete\na,happy\nb,hapy\n")
    options = ["submit", "--check", str(tmp_path / "sent.csv"), "--candidates", str(tmp_path / "names.csv"), "--json"]
    said = run(*options)
    told = json.loads(said.stdout)
    assert said.exit_code == 1 and told["ok"] is False and told["problems"][0]["name"] == "b"
    (tmp_path / "sent.csv").write_text("name,discrete\na,happy\nb,sad\n")
    said = run(*options)
    assert said.exit_code == 0 and json.loads(said.stdout) == {"ok": True, "rows": 2, "problems": []}


def test_numbers_that_do_not_exist_are_null_and_nothing_is_obeyed(capsys):
    assert plain({"a": float("nan"), "b": (1, None, True), "c": REPO}) == {
        "a": None,
        "b": [1, None, True],
        "c": str(REPO),
    }
    with answering(True) as answer:
        print("meanwhile")
        answer["id"] = "\x1b[31m\u202e"
    out, err = capsys.readouterr()
    assert err == "meanwhile\n" and json.loads(out) == {"id": "\x1b[31m\u202e"} and out.isascii() and "\x1b" not in out


# ---- words to parameters


def test_an_option_and_set_must_not_contradict_each_other():
    def given(settings, workers):
        return parameters("demo", "light", None, "", None, settings, workers)

    assert given(["workers=3"], 0)["workers"] == 3 == given(None, 3)["workers"] == given(["workers=3"], 3)["workers"]
    with pytest.raises(SettingsError, match="workers"):
        given(["workers=2"], 3)


def test_a_command_refuses_parameters_that_would_count_for_nothing():
    fuse, final = shares({"corpus": "demo", "seeds": 3, "trials": 1, "labels": "given"}, FuseSettings, PredictSettings)
    assert fuse == {"corpus": "demo", "seeds": 3, "trials": 1}
    assert final == {"corpus": "demo", "seeds": 3, "labels": "given"}
    with pytest.raises(SettingsError, match="hidden"):
        shares({"hidden": 0.5}, FuseSettings, PredictSettings)


def test_files_about_labels_may_look_at_one_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    (tmp_path / "a=b.csv").touch()
    told = label_files(["scores.csv", "text=more.csv", str(tmp_path / "a=b.csv")], REPO / "review.csv")
    assert told["sources"][:2] == ["scores.csv", "text=more.csv"] and told["sources"][2].endswith("/a=b.csv")
    assert told["review"] == "review.csv"
