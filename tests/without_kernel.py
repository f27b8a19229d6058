"""Notebooks executed in the process of the tests, for tests of what a notebook does and not of how it is run."""

from __future__ import annotations

import ast
import contextlib
import runpy
from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import nbformat
import pytest


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let reports execute their cells here: a kernel takes seconds to start and to import everything again."""
    patch.setattr("ecmf_lib.report.papermill.execute_notebook", execute_here)
    patch.setattr(IPython.display, "display", show)


def execute_here(source: Path, target: Path, *, parameters: dict, cwd: Path, **_) -> None:
    """As papermill's, but the notebook that is written has no outputs; beside it stays the script of its cells.

    What a cell shows is rendered all the same: a table or a picture that cannot be drawn is an error here, too.
    """
    notebook = nbformat.read(source, as_version=4)
    lines = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines += [*_statements(cell.source), "draw()"]
            if "parameters" in cell.metadata.get("tags", []):
                lines += [f"{name} = {value!r}" for name, value in parameters.items()]
    script = target.with_suffix(".py")
    script.write_text("\n".join(lines), encoding="utf-8")
    with plt.rc_context(), contextlib.chdir(cwd):
        try:
            runpy.run_path(str(script), {"show": show, "draw": draw})
        finally:
            plt.close("all")  # also what could not be drawn
    nbformat.write(notebook, target)


def _statements(source: str) -> list[str]:
    """A cell's statements, with the value of the last one shown."""
    *steps, last = ast.parse(source).body
    if isinstance(last, ast.Expr):
        last.value = ast.Call(ast.Name("show"), [last.value], [])
    return [ast.unparse(step) for step in (*steps, last)]


def show(*values) -> None:
    """Render values as a page would."""
    for value in values:
        getattr(value, "_repr_html_", value.__repr__)()


def draw() -> None:
    """Draw and close what figures a cell leaves, as a kernel does."""
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
        plt.close(number)
