"""Notebooks are executed headlessly; what fails says where; what has not changed is left alone."""

import json
import pathlib
import re
import subprocess
import sys

import nbformat
import pytest
from typer.testing import CliRunner

from ecmf_lib import config, report, run
from ecmf_lib.config import SettingsError
from ecmf_lib.faces import DetectorError
from ecmf_lib.run import app

HOSTILE = "<script>alert('x')</script>"


class TinySettings(config.Settings):
    words: str = "hello"


def write_notebook(folder, name, *sources):
    cells = [nbformat.v4.new_markdown_cell(f"# {name}"), nbformat.v4.new_code_cell('corpus = "demo"\nwords = "hello"')]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two small notebooks in place of the real ones."""
    sources = tmp_path / "notebooks"
    sources.mkdir()
    registered = {"00_one": TinySettings, "01_two": TinySettings}
    monkeypatch.setattr(report, "SOURCES", sources)
    monkeypatch.setattr(report, "NOTEBOOKS", registered)
    monkeypatch.setattr(config, "NOTEBOOKS", registered)
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    write_notebook(sources, "00_one", "print(words)", "import pandas as pd\npd.DataFrame({'said': [words]})")
    bar = "import sys, time, warnings\nfrom tqdm import tqdm\nfor i in tqdm(range(3)):\n    time.sleep(0.2)"
    write_notebook(sources, "01_two", bar + "\nwarnings.warn('worth' + 'knowing')")
    return tmp_path


def statuses(outcomes) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_executes_renders_and_then_leaves_alone(tiny):
    said = []
    arguments = {"output": tiny / "run", "parameters": {"words": HOSTILE, "seed": 3}, "say": said.append}
    assert statuses(report.run_notebooks(**arguments)) == ["done", "done"]
    page = (tiny / "run/00_one.html").read_text()
    assert "&lt;script&gt;alert" in page
    assert HOSTILE not in page, "what is said in a clip is data, not a part of the page"
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the page opens offline"
    page = (tiny / "run/01_two.html").read_text()
    assert "%|" not in page, "progress bars are for terminals"
    assert "worthknowing" in page, "a warning beside a bar stays"
    assert "00_one.html" in (tiny / "run/index.html").read_text()

    assert statuses(report.run_notebooks(**arguments)) == ["unchanged", "unchanged"]
    write_notebook(tiny / "notebooks", "01_two", "print('new')")
    assert statuses(report.run_notebooks(**arguments)) == ["unchanged", "done"]
    arguments |= {"notebooks": ["01_two"], "data_key": "other clips"}
    assert statuses(report.run_notebooks(**arguments)) == ["done"]
    assert statuses(report.run_notebooks(**arguments)) == ["unchanged"]
    assert statuses(report.run_notebooks(**arguments, force=True)) == ["done"]


def test_reports_are_the_same_bytes_again(tiny):
    write_notebook(
        tiny / "notebooks",
        "01_two",
        "import pandas as pd\nprint(object())\npd.DataFrame({'x': [1]}).style.set_uuid('t')",
    )
    for name in ("a", "b"):
        report.run_notebooks(tiny / name, {"words": "x"}, say=lambda line: None, force=True)
    for file in ("00_one.ipynb", "00_one.html", "01_two.ipynb", "01_two.html"):
        assert (tiny / "a" / file).read_bytes() == (tiny / "b" / file).read_bytes()
    text = "".join(path.read_text() for path in (tiny / "a").iterdir())
    assert str(tiny) not in text


def test_failure_names_notebook_and_cell_and_keeps_the_rest(tiny):
    write_notebook(tiny / "notebooks", "00_one", "print('before')", "1 / 0", "print('after')")
    outcomes = report.run_notebooks(tiny / "run", {}, say=lambda line: None)
    assert statuses(outcomes) == ["failed", "done"], "the others are still executed"
    assert outcomes[0].error == "cell 4 (`1 / 0`) failed: ZeroDivisionError: division by zero"
    page = (tiny / "run/00_one.html").read_text()
    assert "before" in page
    assert "ZeroDivisionError" in page
    assert "papermill-error" not in (tiny / "run/00_one.ipynb").read_text()
    assert "failed" in (tiny / "run/index.html").read_text()
    assert statuses(report.run_notebooks(tiny / "run", {}, say=lambda line: None)) == ["failed", "unchanged"]


def test_a_dead_kernel_is_a_failure_with_its_cell(tiny):
    (tiny / "run").mkdir()
    (tiny / "run/00_one.html").write_text("an old page")
    write_notebook(tiny / "notebooks", "00_one", "print('before')", "import os\nos._exit(1)")
    outcomes = report.run_notebooks(tiny / "run", {}, say=lambda line: None)
    assert statuses(outcomes) == ["failed", "done"]
    assert outcomes[0].error.startswith("cell 4 (`import os`) failed: DeadKernelError")
    page = (tiny / "run/00_one.html").read_text()
    assert "DeadKernelError" in page
    assert "an old page" not in page


def test_index_remembers_a_failure(tiny):
    write_notebook(tiny / "notebooks", "00_one", "1 / 0")
    report.run_notebooks(tiny / "run", {}, say=lambda line: None)
    report.run_notebooks(tiny / "run", {}, notebooks=["01_two"], say=lambda line: None)
    assert "failed: the page ends with the traceback" in (tiny / "run/index.html").read_text()


@pytest.mark.parametrize("content", ["not json", '{"00_one": "a key of an older version"}'])
def test_a_state_that_cannot_be_read_only_costs_time(tiny, content):
    run = {"output": tiny / "run", "parameters": {}, "notebooks": ["00_one"], "say": lambda line: None}
    report.run_notebooks(**run)
    (state,) = (tiny / "data/state").glob("*.json")
    state.write_text(content)
    assert statuses(report.run_notebooks(**run)) == ["done"]
    assert statuses(report.run_notebooks(**run)) == ["unchanged"]


def test_touched_pages_and_tables_are_made_again(tiny):
    arguments = {"output": tiny / "run", "parameters": {}, "say": lambda line: None}
    report.run_notebooks(**arguments)
    (tiny / "run/00_one.html").write_text("edited")
    (tiny / "run/tables/01_two").mkdir(parents=True)
    (tiny / "run/tables/01_two/x.csv").write_text("made by hand in JupyterLab")
    assert statuses(report.run_notebooks(**arguments)) == ["done", "done"]


def test_a_page_is_made_again_when_the_tables_change_that_it_reads(tiny, monkeypatch):
    class Reading(TinySettings):
        reads = ("00_one",)

    monkeypatch.setitem(report.NOTEBOOKS, "01_two", Reading)
    tables = tiny / "run/tables/00_one"
    tables.mkdir(parents=True)
    (tables / "scores.csv").write_text("f1\n.5\n")
    arguments = {"output": tiny / "run", "parameters": {}, "say": lambda line: None}
    assert statuses(report.run_notebooks(**arguments)) == ["done", "done"]
    assert statuses(report.run_notebooks(**arguments)) == ["unchanged", "unchanged"]
    (tables / "scores.csv").write_text("f1\n.6\n")
    assert statuses(report.run_notebooks(**arguments)) == ["done", "done"]


def test_a_widget_is_no_part_of_a_page(tiny):
    write_notebook(
        tiny / "notebooks",
        "00_one",
        "import ipywidgets\nprint('before')\nipywidgets.Button(description='no kernel')",
        "print('after')",
    )
    report.run_notebooks(tiny / "run", {}, notebooks=["00_one"], say=lambda line: None)
    for name in ("00_one.html", "00_one.ipynb"):
        text = (tiny / "run" / name).read_text()
        assert "before" in text and "after" in text
        assert "widget-view" not in text and "widget-state" not in text


def test_machine_folders_are_not_in_the_page(tiny):
    code = "import pathlib, sys, warnings\nwarnings.warn(sys.prefix + '/lib/x.py')\nprint(pathlib.Path.home() / 'me')"
    fails = "raise OSError(str(pathlib.Path.cwd() / 'secret'))"
    write_notebook(tiny / "notebooks", "00_one", code, "pathlib.Path.cwd() / 'x'", fails)
    outcomes = report.run_notebooks(tiny / "run", {}, say=lambda line: None)
    text = (tiny / "run/00_one.html").read_text() + (tiny / "run/00_one.ipynb").read_text() + outcomes[0].error
    assert "notebooks/secret" in text
    for folder in (str(config.REPO), sys.prefix, str(pathlib.Path.home() / "me")):
        assert folder not in text


def test_unknown_parameters_are_refused_before_anything_runs(tiny):
    with pytest.raises(config.SettingsError, match="wrods: unknown"):
        report.run_notebooks(tiny / "run", {"wrods": "x"})
    assert not (tiny / "run").exists()


def test_where_a_stream_is_cut_makes_no_difference():
    def notebook(*texts):
        outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in texts]
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", outputs=outputs)])

    pages = [
        notebook(("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n")),
        notebook(("stdout", "a\nb\n"), ("stderr", "c\n")),
    ]
    for page in pages:
        report._scrub(page)
    assert pages[0].cells[0].outputs == pages[1].cells[0].outputs
    assert [output.name for output in pages[0].cells[0].outputs] == ["stdout", "stderr"]


def test_key_follows_the_library_code_that_a_notebook_reaches():
    reached = report.reached_modules("from ecmf_lib import corpus\n%matplotlib inline\nimport pandas")
    own = ["__init__.py", "bounded.py", "config.py", "corpus.py", "corpus_files.py", "plain_csv.py", "tables.py"]
    assert reached == [*own, "text_check.py"]
    everything = report.reached_modules("from ecmf_lib.study import run")
    assert {"encoders/vision.py", "encoders/speech.py", "fit.py", "fusion.py"} <= set(everything)
    assert report.reached_modules("import numpy") == []


def test_a_broken_notebook_is_refused_with_its_name(tiny):
    path = tiny / "notebooks" / "00_one.ipynb"
    for content in ("", "[" * 100_000, "[]", '{"nbformat": 99}', path.read_text().replace('"cells"', '"sells"')):
        path.write_text(content)
        with pytest.raises(SettingsError, match=r"00_one\.ipynb: not a notebook \(.*restore it"):
            report.run_notebooks(tiny / "run", {"words": "x"}, say=lambda line: None)


def test_a_cell_that_is_no_python_is_a_page_that_says_so(tiny):
    write_notebook(tiny / "notebooks", "00_one", "def (")
    (outcome,) = report.run_notebooks(tiny / "run", {"words": "x"}, notebooks=["00_one"], say=lambda line: None)
    assert outcome.status == "failed" and "SyntaxError" in outcome.error


@pytest.mark.parametrize(
    "headline",
    ["", "[1]", "[" * 100_000, '{"title": 5, "figures": 7, "provenance": 9}', '{"thumbnail": "../../x.png"}'],
)
def test_an_index_is_made_whatever_a_headline_says(tmp_path, headline):
    tables = tmp_path / "run" / "tables" / "00_start_here"
    tables.mkdir(parents=True)
    (tmp_path / "run" / "x.png").write_bytes(b"SECRET")
    (tmp_path / "run" / "00_start_here.html").write_text("page")
    (tables / "headline.json").write_text(headline)
    report.write_index(tmp_path / "run", {})
    page = (tmp_path / "run" / "index.html").read_text()
    assert '<a href="00_start_here.html">00_start_here</a>' in page and "<img" not in page


def test_command_refuses_with_a_readable_message(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    runner = CliRunner()
    for arguments, words in [
        (["check", str(tmp_path / "none")], "no corpus"),
        (["report", "demo", "--set", "seeds"], "expected NAME=VALUE"),
        (["report", "demo", "--set", "sed=1"], "sed: unknown"),
        (["report", "demo", "--set", "output=/x"], "given to the command itself"),
        (["report", "demo", "--set", "seeds=many"], "seeds = 'many'"),
        (["report", "demo", "--notebook", "99"], "no notebook '99'"),
        (["demo", str(tmp_path / "x"), "--clips", "0"], "greater than or equal to 6"),
        (["extract", str(tmp_path)], "no adapter knows"),
    ]:
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())
        assert "Traceback" not in result.output


def test_check_says_what_a_corpus_holds(tmp_path):
    (tmp_path / "manifest.csv").write_text("id,label,transcript,speaker\na,happy,Hi,ann\nb,sad,Oh,bob\n")
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 0
    assert "2 clips, 0 left out; folds would hold speakers apart" in result.output


def test_values_are_read_by_the_type_of_the_parameter():
    assert run._assignments(["seeds=5", "clip=7", "detector=lbp"]) == {"seeds": 5, "clip": "7", "detector": "lbp"}


@pytest.mark.parametrize(
    ("given", "streams"),
    [
        ("face,audio", ["face", "audio"]),
        (" face , audio,", ["face", "audio"]),
        ("7", ["7"]),
        ("", []),
        ('text,"all features, logistic"', ["text", "all features, logistic"]),
    ],
)
def test_lists_are_split_at_commas(given, streams):
    chosen = run._assignments([f"streams={given}"])
    assert chosen == {"streams": streams}
    assert config.check_parameters("03_fuse_and_ablate", chosen).streams == streams


def test_encoders_are_swapped_on_the_command_line():
    given = run.swaps(["audio=wavlm-large:layers=last4,chunk=10", "text=char-ngram", "face=:pooling=mean+std"])
    assert given == {
        "audio": {"name": "wavlm-large", "layers": "last4", "chunk": 10},
        "text": {"name": "char-ngram"},
        "face": {"pooling": "mean+std"},
    }
    for wrong in ("wavlm-large", "audio=wavlm-large:layers"):
        with pytest.raises(SettingsError, match="expected STREAM=NAME"):
            run.swaps([wrong])


def test_a_language_model_is_named_on_the_command_line():
    given = run.language_model(["base_url=http://127.0.0.1:1/v1", "model=7", "allow_remote=true", "timeout=2.5"])
    assert given == {"base_url": "http://127.0.0.1:1/v1", "model": "7", "allow_remote": True, "timeout": 2.5}
    with pytest.raises(SettingsError, match="--llm model: expected NAME=VALUE"):
        run.language_model(["model"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "enricher=llm", "--llm", "base_url=http://example.org/v1", "--llm", "model=m"], "allow_remote"),
        (["--set", "enricher=llm", "--llm", "modle=m"], "llm, with modle"),
        (["--profile", "heavy"], "no profile 'heavy'; choose from light"),
        (["--encoder", "audio=char-ngram"], "is for stream 'text', not for 'audio'"),
        (["--set", "profile=base"], "the profile is given to the command itself"),
        (["--set", "device=gpu"], "device = 'gpu'"),
    ],
)
def test_a_choice_of_encoders_that_cannot_be_is_refused(tmp_path, monkeypatch, options, said):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    (tmp_path / "manifest.csv").write_text("id,label,transcript\na,happy,yes\n")
    result = CliRunner().invoke(app, ["extract", str(tmp_path), *options])
    assert result.exit_code == 2 and said in result.output


def test_help_needs_neither_torch_nor_jupyter():
    code = "import sys, ecmf_lib.run\nprint([m for m in ('torch', 'papermill', 'pandas') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == []


def test_a_model_pack_that_cannot_be_reached_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    (tmp_path / "manifest.csv").write_text("id,label\na,happy\n")
    asked = []

    def unreachable(name, weights):
        asked.append((name, weights))
        raise DetectorError("buffalo_sc: cannot be downloaded")

    monkeypatch.setattr("ecmf_lib.project.get_detector", unreachable)
    arguments = ["extract", str(tmp_path), "--weights", "buffalo_sc", "--set", "detector=insightface"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "cannot be downloaded" in result.output
    assert asked == [("insightface", "buffalo_sc")], "a pack's name is no folder"
