"""Notebooks executed in the process of the tests with all that they show, as a kernel would have it on the page."""

from __future__ import annotations

import base64
import contextlib
import io
from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_output
from papermill.translators import PythonTranslator
from without_kernel import _statements


def with_outputs(patch: pytest.MonkeyPatch) -> None:
    """Let reports execute their cells here: a kernel takes seconds to start and to import everything again."""
    patch.setattr("ecmf_lib.report.papermill.execute_notebook", execute_shown)


def execute_shown(source: Path, target: Path, *, parameters: dict, cwd: Path, **_) -> None:
    """As papermill's, with outputs: what is printed, shown and drawn. Pictures are small."""
    notebook = nbformat.read(source, as_version=4)
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    injected = new_code_cell(PythonTranslator.codify(parameters), metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(at + 1, injected)
    formatter, names = DisplayFormatter(), {"__name__": "__main__"}
    with plt.rc_context(), contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        try:
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    _run(cell, names, formatter, patch)
        finally:
            plt.close("all")
            nbformat.write(notebook, target)


def _run(cell, names: dict, formatter: DisplayFormatter, patch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()

    def told() -> None:
        if printed.getvalue():
            cell.outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
        printed.seek(0)
        printed.truncate()

    def show(*values) -> None:
        told()
        for value in values:
            if value is not None:
                data, metadata = formatter.format(value)
                cell.outputs.append(new_output("display_data", data=data, metadata=metadata))

    patch.setattr(IPython.display, "display", show)
    names |= {"show": show} | ({"display": show} if "display" in names else {})
    with contextlib.redirect_stdout(printed):
        exec(compile("\n".join(_statements(cell.source)), "<cell>", "exec"), names)
    told()
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, dpi=20)
        data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": "<Figure>"}
        cell.outputs.append(new_output("display_data", data=data))
        plt.close(number)
