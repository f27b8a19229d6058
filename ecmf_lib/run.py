"""The ``ecmf`` command: what the Makefile and the notebooks do, by hand. Its commands: :mod:`ecmf_lib.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from ecmf_lib import __version__
from ecmf_lib.commands import corpora, machine, models, new_clips, reports
from ecmf_lib.commands.options import examples
from ecmf_lib.commands.talk import refusals
from ecmf_lib.commands.words import assignments as _assignments
from ecmf_lib.commands.words import language_model, swaps

__all__ = ["_assignments", "app", "language_model", "refusals", "swaps"]

# What needs torch or Jupyter is imported inside the commands: `ecmf --help` and `ecmf check` answer at once.

app = typer.Typer(
    help="Multimodal emotion recognition: corpora, features, labels, models, reports.",
    epilog="Exit status: 0 done, 1 something failed or is incomplete, 2 wrong use. All about it: docs/command.md",
    no_args_is_help=True,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ecmf {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say it and end")
    ] = False,
) -> None:
    """Multimodal emotion recognition: corpora, features, labels, models, reports."""


#: Command → its function and its examples, in the order of work.
COMMANDS = {
    "doctor": (machine.doctor, ["ecmf doctor", "ecmf doctor --profile base --offline --json"]),
    "demo": (corpora.demo, ["ecmf demo clips --clips 48"]),
    "check": (corpora.check, ["ecmf check /path/to/folder", "ecmf check ravdess:/path/to/RAVDESS"]),
    "fetch": (machine.fetch, ["ecmf fetch --profile base", "ecmf fetch --encoder audio=wavlm-large"]),
    "stand-ins": (machine.stand_ins, ["ecmf stand-ins weights --profile base"]),
    "extract": (
        corpora.extract,
        ["ecmf extract demo --json", "ecmf extract /path/to/folder --profile base --workers 4"],
    ),
    "enrich": (
        corpora.enrich,
        [
            "ecmf enrich demo --output enriched",
            "ecmf enrich demo --enricher llm --llm base_url=http://127.0.0.1:8000/v1 --llm model=qwen3",
        ],
    ),
    "train": (
        models.train,
        [
            "ecmf train demo --rival LMF --rival concatenation --set seeds=2",
            "ecmf train demo --bundle models/demo --no-scores --set labels=refined",
        ],
    ),
    "refine": (
        models.refine,
        ["ecmf refine demo --output refined", "ecmf refine demo --review refined/review.csv --source text=scores.csv"],
    ),
    "predict": (
        new_clips.predict,
        ["ecmf predict clip.mp4 --bundle models/demo", "ecmf predict clips --bundle models/demo --json"],
    ),
    "submit": (
        new_clips.submit,
        [
            "ecmf submit mer2025:/path/to/MER2025 --bundle models/mer --output submission.csv",
            "ecmf submit --check submission.csv --candidates track_all_candidates.csv",
        ],
    ),
    "report": (
        reports.report,
        ["ecmf report demo", "ecmf report /path/to/folder --notebook 03_fuse_and_ablate --set seeds=2"],
    ),
}
for _name, (_function, _lines) in COMMANDS.items():
    app.command(_name, epilog=examples(*_lines))(_function)
