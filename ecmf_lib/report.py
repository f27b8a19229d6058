"""Execute the notebooks headlessly with papermill and render what they show as pages that open offline.

A run is a folder ``reports/<run>/``: executed notebooks, one HTML page each, ``tables/`` (the data behind every
table and figure) and ``index.html``. Nothing in it names a machine or an absolute path.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from pygments.formatters import HtmlFormatter

from ecmf_lib.bounded import check_file, read_json
from ecmf_lib.config import NOTEBOOKS, REPO, SettingsError, cache_dir, check_parameters
from ecmf_lib.enrich_address import without_address

SOURCES = REPO / "notebooks"
LIBRARY = REPO / "ecmf_lib"


@dataclass(frozen=True)
class Outcome:
    """How one notebook went."""

    notebook: str
    status: str  # "done", "unchanged" or "failed"
    error: str = ""  # which cell, and what it said


def run_notebooks(
    output: Path,
    parameters: dict,
    *,
    notebooks: list[str] | None = None,
    data_key: str = "",
    force: bool = False,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Execute notebooks into ``output`` and write the pages; what nothing has touched since is left as it is.

    Parameters
    ----------
    output : Path
        The run's folder.
    parameters : dict
        Offered to every notebook; each takes those it has. A name that none of them has is refused.
    notebooks : list of str, optional
        Which ones, default all.
    data_key : str
        Stands for the corpus's content: a notebook is executed again when it changes.
    force : bool
        Execute even if nothing changed.
    say : callable
        Takes progress lines.

    Raises
    ------
    SettingsError
        Unknown or ill-typed parameters, before anything is executed.
    """
    wanted = notebooks or list(NOTEBOOKS)
    settings = {name: parameters_of(name, parameters) for name in wanted}
    output.mkdir(parents=True, exist_ok=True)
    state = _State(output)
    outcomes = []
    for name in wanted:
        read = [state.files(other) for other in NOTEBOOKS[name].reads]
        key = _digest(source_key(name), json.dumps(settings[name], sort_keys=True), data_key, *read)
        if not force and state.is_current(name, key):
            outcomes.append(Outcome(name, "unchanged"))
        else:
            say(f"{name}: executing")
            state.set(name, status="started")  # whatever happens from here on, this is no finished page
            outcomes.append(execute(name, output, settings[name]))
            state.set(name, status=outcomes[-1].status, key=key)
        say(f"{name}: {outcomes[-1].status} {outcomes[-1].error}".rstrip())
    write_index(output, state.statuses())
    return outcomes


def parameters_of(name: str, parameters: dict) -> dict:
    """This notebook's share of the parameters, checked; unknown is what no notebook takes."""
    if name not in NOTEBOOKS:
        check_parameters(name, {})  # says which there are
    known = {field for model in NOTEBOOKS.values() for field in model.model_fields}
    own = NOTEBOOKS[name].model_fields
    return check_parameters(name, {k: v for k, v in parameters.items() if k in own or k not in known}).model_dump()


def execute(name: str, output: Path, parameters: dict) -> Outcome:
    """Execute one notebook and render its page, also when a cell fails: then the page ends with the traceback."""
    target = output / f"{name}.ipynb"
    for old in (target, output / f"{name}.html", output / "tables" / name / "headline.json"):
        old.unlink(missing_ok=True)
    failure = None
    try:
        # JUPYTER_PREFER_ENV_PATH: this environment's kernel, whatever kernels the user has elsewhere
        os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
        papermill.execute_notebook(
            SOURCES / f"{name}.ipynb",
            target,
            parameters=parameters,
            kernel_name="python3",
            cwd=REPO / "notebooks",
            extra_arguments=["--log-level=40"],  # ipykernel warns of TCP on loopback at each start
            progress_bar={"file": sys.stderr, "desc": name, "leave": False},
        )
    except Exception as error:  # a cell's error, or a kernel that died or could not start
        failure = error
    notebook = nbformat.read(target if target.is_file() else SOURCES / f"{name}.ipynb", as_version=4)
    error = _where(notebook, failure) if failure else ""
    _scrub(notebook)
    if address := parameters.get("llm", {}).get("base_url"):  # it stands among the parameters
        notebook = nbformat.reads(without_address(nbformat.writes(notebook), address), as_version=4)
        error = without_address(error, address)
    nbformat.write(notebook, target)
    (output / f"{name}.html").write_text(render(notebook, name, error), encoding="utf-8")
    return Outcome(name, "failed" if failure else "done", error)


def _where(notebook, failure: Exception) -> str:
    """Which cell failed, counted as in the source (papermill adds one with the parameters), and what it said."""
    said = f"{type(failure).__name__}: {failure}".strip()
    if isinstance(failure, PapermillExecutionError):
        said = f"{failure.ename}: {failure.evalue}"
    number = 0
    for cell in notebook.cells:
        number += not {"injected-parameters", "papermill-error-cell-tag"} & set(cell.metadata.get("tags", []))
        # a kernel that died leaves no other mark than the answer that never came
        answered = "shell.execute_reply" in cell.metadata.get("execution", {})
        if cell.cell_type == "code" and (cell.metadata.get("papermill", {}).get("exception") or not answered):
            first_line = next(iter(cell.source.strip().splitlines()), "")
            return _anonymous(f"cell {number} (`{first_line}`) failed: {said}")
    return _anonymous(said)


def _scrub(notebook) -> None:
    """Take out what differs from machine to machine and from minute to minute: times, host paths, progress bars."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # papermill draws a random one for the cell that it injects
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            outputs = [_scrubbed(output) for output in _joined(cell.outputs) if not _is_widget(output)]
            cell.outputs = [o for o in outputs if o.output_type != "stream" or o.text]


def _is_widget(output) -> bool:
    """Widgets need a kernel and scripts; a page has neither, and notebook 06 shows the same as tables and pictures."""
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _joined(outputs: list) -> list:
    """Outputs with what was printed in a row as one: where a kernel cuts a stream is a matter of timing."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _scrubbed(output):
    output.pop("transient", None)
    if output.output_type == "stream":
        output.text = _anonymous(_without_progress(output.text))
    elif output.output_type == "error":
        output.evalue = _anonymous(output.evalue)
        output.traceback = [_anonymous(line) for line in output.traceback]
    else:
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                output.data[kind] = _anonymous(content)
    return output


#: A line of a tqdm bar: "name:  40%|████      | 96/240 [00:10<…", or "3it [00:10, …" where the total is unknown.
_PROGRESS = re.compile(r"\d+%\|.*\||\d+it \[")


def _without_progress(text: str) -> str:
    """A stream's text without progress bars; empty if nothing else was in it."""
    kept = [line for line in text.splitlines(keepends=True) if not _PROGRESS.search(line) and line.strip(" \r")]
    return "".join(kept) if "".join(kept).strip() else ""


def _anonymous(text: str) -> str:
    """A text without this machine's folders (checkout, environment, home) and this process's addresses."""
    text = re.sub(r" at 0x[0-9a-f]+>", ">", text)  # an object's address is another one each time
    text = text.replace(f"{Path(sys.prefix)}{os.sep}", f".venv{os.sep}").replace(f"{REPO}{os.sep}", "")
    return text.replace(f"{Path.home()}{os.sep}", f"~{os.sep}") if len(Path.home().parts) > 1 else text


#: No script, frame, form or request, whatever a page should come to hold: escaping is the first wall, this the second.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{style}</style></head>
<body><main>{body}</main></body></html>
"""


def _page(title: str, body: str) -> str:
    css = (LIBRARY / "report.css").read_text(encoding="utf-8")
    style = css + HtmlFormatter(style="default").get_style_defs(".highlight")
    return _PAGE.format(title=html.escape(title), policy=POLICY, style=style, body=body)


def render(notebook, name: str, error: str = "") -> str:
    """One executed notebook → one page that needs nothing from the network.

    nbconvert's own full page loads two scripts from elsewhere; its body alone does not.
    """
    body, _ = HTMLExporter(template_name="basic", embed_images=True).from_notebook_node(notebook)
    banner = f'<p class="failed">{html.escape(name)}: {html.escape(error)}</p>' if error else ""
    return _page(name, f'<p class="soft"><a href="index.html">← all notebooks</a></p>{banner}{body}')


def write_index(output: Path, statuses: dict[str, str]) -> None:
    """``index.html``: a card for each notebook (picture, headline figures, link) and where the numbers come from."""
    cards, provenance = [], {}
    for name in NOTEBOOKS:
        if (output / f"{name}.html").is_file():
            headline = _headline(output / "tables" / name / "headline.json")
            provenance = headline.get("provenance", provenance)
            cards.append(_card(name, headline, output / "tables" / name, statuses.get(name) == "failed"))
    body = f"<h1>ECMF report: {html.escape(output.name)}</h1><div class='cards'>{''.join(cards)}</div>"
    body += f"<h2>Where these numbers come from</h2><dl class='soft'>{_definitions(provenance)}</dl>"
    (output / "index.html").write_text(_page(f"ECMF report: {output.name}", body), encoding="utf-8")


def _card(name: str, headline: dict, tables: Path, failed: bool) -> str:
    picture, image = tables / "thumbnail.png", ""
    if picture.is_file() and not picture.is_symlink() and not failed:
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img alt="{html.escape(headline.get("title", name))}" src="data:image/png;base64,{data}">'
    figures = "".join(
        f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in headline.get("figures", {}).items()
    )
    note = (
        '<p class="failed">failed: the page ends with the traceback</p>'
        if failed
        else f'<dl class="soft">{figures}</dl>'
    )
    title = html.escape(headline.get("title", name))
    return f'<section class="card">{image}<h2><a href="{name}.html">{title}</a></h2>{note}</section>'


def _definitions(facts: dict) -> str:
    return "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items())


def _read_json(path: Path) -> dict:
    """A file's dict; empty if there is none, or it cannot be read."""
    try:
        told = read_json(path)
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _headline(path: Path) -> dict:
    """What a page's notebook says of itself, as far as it has the form of that."""
    forms = {"title": str, "figures": dict, "provenance": dict}
    return {name: value for name, value in _read_json(path).items() if isinstance(value, forms.get(name, ()))}


def _read_notebook(path: Path):
    """A notebook of the checkout; SettingsError if somebody has broken the file."""
    try:
        check_file(path)
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook, relax_add_props=True)
        "".join(cell.source for cell in notebook.cells).encode()  # halves of characters cannot be written again
        return notebook
    except Exception as error:  # nbformat, its schema and its converters raise many kinds
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise SettingsError(f"{path}: not a notebook ({why}); restore it, for instance with git checkout") from None


class _State:
    """What each page was made from; outside the run's folder, since reports are shared and this is local."""

    def __init__(self, output: Path):
        self._output = output
        self._path = cache_dir() / "state" / f"{output.name}-{_digest(str(output.resolve()))[:16]}.json"

    def statuses(self) -> dict[str, str]:
        """Notebook → "done", "failed" or "started", from this and earlier runs."""
        return {name: about["status"] for name, about in self._known().items()}

    def is_current(self, name: str, key: str) -> bool:
        """Whether the page was made from these sources, and nobody has touched it or its tables since."""
        return self._known().get(name) == {"status": "done", "key": key, "files": self.files(name)}

    def set(self, name: str, *, status: str, key: str = "") -> None:
        known = self._known() | {name: {"status": status, "key": key, "files": self.files(name)}}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(self._path)

    def _known(self) -> dict[str, dict[str, str]]:
        """What is on file; anything that cannot be read (another version wrote it) counts as not known."""
        content = _read_json(self._path).items()
        return {name: told for name, told in content if isinstance(told, dict) and isinstance(told.get("status"), str)}

    def files(self, name: str) -> str:
        """Digest of what a notebook has left: its page, the notebook, its tables."""
        tables = sorted((self._output / "tables" / name).glob("*"))
        made = [self._output / f"{name}.html", self._output / f"{name}.ipynb", *tables]
        return _digest(
            *(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in made if path.is_file())
        )


def source_key(name: str) -> str:
    """Digest of a notebook's cells, the library modules it reaches through imports, the renderer and the pins."""
    notebook = _read_notebook(SOURCES / f"{name}.ipynb")
    cells = [cell.source for cell in notebook.cells]
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    modules = reached_modules(code)
    parts = [(LIBRARY / path).read_text(encoding="utf-8") for path in [*modules, "report.py", "report.css"]]
    return _digest(*cells, *modules, *parts, (REPO / "requirements.lock").read_text())


def reached_modules(code: str) -> list[str]:
    """Files of ``ecmf_lib`` that ``code`` imports, directly or not, as sorted paths relative to it."""
    reached: set[str] = set()
    todo = [code]
    while todo:
        for module in _imports(todo.pop()):
            for path in _files(module):
                if path not in reached:
                    reached.add(path)
                    todo.append((LIBRARY / path).read_text(encoding="utf-8"))
    if "encoders/__init__.py" in reached:  # it imports families of models by name, when one is asked for
        reached |= {path.relative_to(LIBRARY).as_posix() for path in (LIBRARY / "encoders").glob("*.py")}
    return sorted(reached)


def _imports(code: str) -> set[str]:
    """Dotted names below ``ecmf_lib`` that a source imports; IPython magics are no Python and are skipped."""
    names = set()
    try:
        tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the notebook will say so when it is executed
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "ecmf_lib"}


def _files(module: str) -> list[str]:
    parts = module.split(".")[1:]
    candidates = ["/".join(parts) + ".py"] if parts else []
    candidates += ["/".join([*parts[:n], "__init__.py"]) for n in range(len(parts) + 1)]
    return [path for path in candidates if (LIBRARY / path).is_file()]


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()
