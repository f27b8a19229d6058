"""A report on clips whose people, ids, files, notes and language model all attack it: nothing runs, nothing is told."""

import csv
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import opened
from conftest import no_workers
from fault_server import FaultServer, clips
from hostile_words import IDS, OWN, SCRIPTS, SIGNS, hostile_answer, hostile_corpus
from nbformat.v4 import new_code_cell, new_notebook, new_output
from shown_pages import with_outputs
from test_predicting import random_bundle
from test_security_cells import runs
from typer.testing import CliRunner

from ecmf_lib import report
from ecmf_lib.config import EMOTIONS, NOTEBOOKS
from ecmf_lib.enrich import LLMEnricher, enrich
from ecmf_lib.enrich_address import without_address
from ecmf_lib.interchange import import_arrays
from ecmf_lib.prediction_report import report_page
from ecmf_lib.run import app
from ecmf_lib.store import FeatureStore

KEY = "sk-very-s3cret-0123456789"
TINY = [
    *("folds=2", "seeds=1", "epochs=1", "bootstrap=50", "frames=2", "trials=0", "side_seeds=0", "steps=0"),
    *("streams=face,text", "fusions=concatenation", "workers=1", "enricher=llm"),
]


class Listener(logging.Handler):
    """Everything that is logged, at any level."""

    def __init__(self):
        super().__init__(logging.NOTSET)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def attacked(six_clips, tmp_path_factory):
    """The folder of a whole report on hostile words, what its making said, and the server's address."""
    root = tmp_path_factory.mktemp("attacked")
    (root / "corpus").mkdir()
    corpus = hostile_corpus(root / "corpus", six_clips)
    # a file's name cannot hold "/", an id no "<": with those, the script stands in notes and names of files
    source = root / f"<img src=x onerror={OWN.split(';')[1]}>.csv"
    source.write_text("id,label\n" + "".join(f"{clip},sad\n" for clip in IDS[:4]), encoding="utf-8")
    review = pd.DataFrame({"id": IDS[:3], "decision": ["sad", "drop", "happy"], "note": SCRIPTS[:3]})
    review.to_csv(root / "review.csv", index=False)
    listener, logger = Listener(), logging.getLogger()
    with pytest.MonkeyPatch.context() as patch, FaultServer(say=hostile_answer) as server:
        patch.setenv("ECMF_DATA", str(root / "data"))
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setattr(logger, "level", logging.DEBUG)
        patch.setattr(logger, "handlers", [*logger.handlers, listener])
        no_workers(patch)
        with_outputs(patch)
        llm = [f"base_url={server.url}", f"model={SCRIPTS[0]}"]
        settings = [*TINY, f'sources="{source}"', f"review={root / 'review.csv'}"]
        options = [word for name, value in [("llm", x) for x in llm] + [("set", x) for x in settings]
                   for word in (f"--{name}", value)]  # fmt: skip
        result = CliRunner().invoke(app, ["report", str(corpus), "--output", str(root / "run"), *options])
        assert {heard["authorization"] for heard in server.heard} == {f"Bearer {KEY}"}, "the key was in use"
    assert result.exit_code == 0, result.output
    assert listener.lines, "somebody listens"
    yield root, result.output + "\n".join(listener.lines), server


def failed_page() -> str:
    """The page of a notebook that failed, with everything that a kernel may send."""
    outputs = [
        new_output("stream", name="stderr", text="\n".join([*SCRIPTS, *SIGNS])),
        new_output("error", ename=SCRIPTS[0], evalue=SCRIPTS[1], traceback=[*SCRIPTS, *SIGNS]),
        new_output("execute_result", data={"text/plain": SCRIPTS[4]}),
        new_output("display_data", data={"text/html": pd.DataFrame({SCRIPTS[0]: SCRIPTS}, SCRIPTS)._repr_html_()}),
    ]
    notebook = new_notebook(cells=[new_code_cell(f"corpus = {SCRIPTS[0]!r}  # {SCRIPTS[4]}", outputs=outputs)])
    return report.render(notebook, "00_start_here", f"failed: {SCRIPTS[0]} {SCRIPTS[2]}")


def predicted_page(folder: Path, rng) -> str:
    """The page of ``ecmf predict`` for files, reasons, transcripts and a bundle that are hostile."""
    arrays = {"face": rng.normal(size=(3, 4)).astype("float32")}
    about = {"corpus_name": "made", "corpus_fingerprint": "0"}
    sets = import_arrays(FeatureStore(folder), ids=["a", "b", "c"], streams=arrays, source="made.npz", **about)
    told = {
        "corpus": SCRIPTS[0],
        "licence": SCRIPTS[1],
        "notes": SCRIPTS,
        "expected": {"weighted_f1": 0.5, "how": SCRIPTS[2]},
    }
    bundle = random_bundle(sets, told)
    n = len(SCRIPTS)
    table = pd.DataFrame({"file": SCRIPTS, "id": "a", "predicted": ["sad"] * (n - 3) + [""] * 3, "transcript": SCRIPTS})
    table = table.assign(missing=SCRIPTS, note=SCRIPTS, reason=SCRIPTS, w_face=1.0)
    return report_page(table.assign(**{f"p_{name}": 1 / 6 for name in EMOTIONS}), bundle, None)


@pytest.fixture(scope="module")
def pages(attacked, tmp_path_factory):
    """Every page that the project makes, by name."""
    folder = attacked[0] / "run"
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    assert set(found) == {f"{name}.html" for name in NOTEBOOKS} | {"index.html"}
    found["failed.html"] = failed_page()
    found["predicted.html"] = predicted_page(tmp_path_factory.mktemp("store"), np.random.default_rng(0))
    return found


BANNED = frozenset("script iframe object embed form base link svg math details".split())
#: Where links of our own lead.
LINK = re.compile(r"#|[\w-]+\.html$|https://arxiv\.org/")


class Page(HTMLParser):
    """What of a page could run, load or lead somewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in BANNED or given.get("http-equiv", "").lower() == "refresh":
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name in given if name.startswith("on") or name == "srcdoc"]
        if "src" in given and not re.match(r"data:image/(png|jpeg);base64,", given["src"] or ""):
            self.found.append(f"{tag} src={given['src']}")
        if "href" in given and not LINK.match(given["href"] or ""):
            self.found.append(f"{tag} href={given['href']}")


ALL_PAGES = [*(f"{name}.html" for name in NOTEBOOKS), "index.html", "failed.html", "predicted.html"]


@pytest.mark.parametrize("name", ALL_PAGES)
def test_no_page_has_anything_that_runs_or_leads_away(pages, name):
    assert "data-owned" in pages[name], "the attack is on this page, as a text"
    assert Page(pages[name]).found == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', pages[name])[1]
    assert "default-src 'none'" in policy and "script-src" not in policy, "and if something were, it would not run"


def test_the_check_of_pages_finds_each_attack():
    for script in SCRIPTS[:6]:
        assert Page(f"<p>{script}</p>").found, script
    for link in ("javascript:x", " javascript:x", "data:text/html,x", "//evil.example", "https://evil.example/"):
        assert Page(f'<a href="{link}">x</a>').found, link


def without_policy(page: str) -> str:
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)


@pytest.mark.parametrize("name", ALL_PAGES)
def test_a_browser_runs_none_of_it_even_without_the_policy(pages, tmp_path, name):
    """Escaping alone has to hold: the policy, a second wall, is taken out of the page first."""
    bare = without_policy(pages[name])
    assert bare != pages[name]
    (tmp_path / "page.html").write_text(bare, encoding="utf-8")
    dom = opened(tmp_path / "page.html", tmp_path / "browser")
    assert 'data-owned="42"' not in dom and "<title>owned" not in dom
    assert Page(dom).found == [], "nor has the browser mended anything into something that would"


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_the_browser_runs_an_attack_that_is_not_escaped_and_the_policy_stops_it(tmp_path, number):
    """Else the test above would be of nothing."""
    page = report._page("x", SCRIPTS[number])
    for name, text, title in (("open", without_policy(page), "owned"), ("held", page, "x")):
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        dom = opened(tmp_path / f"{name}.html", tmp_path / "browser")
        assert ('data-owned="42"' in dom) == (title == "owned") and f"<title>{title}</title>" in dom


def test_no_cell_of_any_table_is_a_formula(attacked):
    tables = sorted((attacked[0] / "run").rglob("*.csv"))
    assert len(tables) > 20
    guarded = 0
    for path in tables:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1, f"{path.name}: a text has broken its row"
        if path.name == "submission.csv":  # its form is fixed: names as they are
            continue
        for cell in (cell for row in rows for cell in row):
            assert not runs(cell) or re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell), f"{path.name}: {cell!r}"
            guarded += cell.startswith("'")
    assert guarded > 10, "hostile ids are in the tables"


def test_address_and_key_of_the_language_model_are_nowhere(attacked):
    root, said, server = attacked
    secrets = [KEY, f"127.0.0.1:{server.port}", f":{server.port}/"]
    assert not [secret for secret in secrets if secret in said], "in what was printed or logged"
    files = [path for path in (*(root / "run").rglob("*"), *(root / "data").rglob("*")) if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".html", ".ipynb", ".json", ".csv", ".parquet", ".sqlite", ".safetensors"} <= kinds
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path.name
    notebook = nbformat.read(root / "run/02_enrich_text.ipynb", as_version=4)
    assert any('"base_url": "not shown"' in cell.source for cell in notebook.cells), "the page says that there was one"


def test_who_executes_a_notebook_without_the_command_is_not_told_on_either(tmp_path, monkeypatch):
    """`run_notebooks` with a live address: it stands among the parameters until the page is written."""
    address = "http://user-host.example:8123/v1"
    (tmp_path / "src").mkdir()
    cells = [new_code_cell("corpus = 'demo'\nllm = {}\nenricher = 'cues'", metadata={"tags": ["parameters"]})]
    cells += [
        new_code_cell("print('asking', llm['base_url'], 'at user-host.example')"),
        new_code_cell("1 / 0 if llm else 2"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "src/00_start_here.ipynb")
    monkeypatch.setattr(report, "SOURCES", tmp_path / "src")
    with_outputs(monkeypatch)
    report.execute("00_start_here", tmp_path, {"llm": {"base_url": address, "model": "m"}})
    for path in (tmp_path / "00_start_here.html", tmp_path / "00_start_here.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert "asking" in text and "***" in text
        assert "user-host.example" not in text and "8123" not in text


@pytest.mark.parametrize(
    "address",
    [
        "http://user:s3cret@127.0.0.1:9/v1",
        "http://127.0.0.1:9/v1?key=s3cret",
        "https://llm.s3cret.example/v1",
        "ftp://s3cret.example/v1",
        "http://s3cret:port/v1",
        "http://127.0.0.1:9/v1#s3cret",
    ],
)
def test_a_refused_address_is_not_repeated(tmp_path, monkeypatch, address):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    (tmp_path / "manifest.csv").write_text("id,label,transcript\na,happy,yes\n")
    options = ["--set", "enricher=llm", "--llm", f"base_url={address}", "--llm", "model=m"]
    result = CliRunner().invoke(app, ["extract", str(tmp_path), *options])
    assert result.exit_code == 2 and "s3cret" not in result.output
    assert "http://127.0.0.1:8000/v1" in result.output or "before '@'" in result.output, "what is expected is said"


def test_a_server_that_repeats_its_address_is_not_quoted():
    with FaultServer(status=400) as server:
        (one,) = enrich(clips(1), LLMEnricher(server.url, "m"), cache=None, progress=False)
        assert one.state == "fallback" and str(server.port) not in one.reason
    told = without_address("POST https://llm.example/v1/chat: llm.example refused", "https://llm.example/v1/")
    assert "llm.example" not in told and told.endswith("refused")
    assert without_address("a gpu is a gpu", "http://gpu/v1") == "a gpu is a gpu", "a plain word may be any"


def test_a_terminal_obeys_nothing_of_what_a_manifest_says(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    (tmp_path / "manifest.csv").write_text(f"id,label,video\na,{SIGNS[0]},\u202ex.mp4\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 2 and "unknown label" in result.output
    assert "\\u001b[31mred" in result.output and "\\u202e" in result.output, "spelt out"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.output)
