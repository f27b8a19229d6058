"""``ecmf report``: features, notebooks, pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.commands.options import (
    CorpusArgument,
    EncoderOption,
    EngineOption,
    LLMOption,
    ProfileOption,
    SetOption,
    ShareOption,
    WeightsOption,
    WorkersOption,
)
from ecmf_lib.commands.talk import can_be_studied, echo, refusals, run_on, say_ledger
from ecmf_lib.commands.words import parameters as parameters_given
from ecmf_lib.commands.words import relative, relative_spec
from ecmf_lib.config import NOTEBOOKS, REPO, Settings, SettingsError


def report(
    corpus: CorpusArgument = "demo",
    output: Annotated[
        Path | None, typer.Option(help="folder; default: reports/<corpus>[-<profile>] of the checkout")
    ] = None,
    notebook: Annotated[
        list[str] | None, typer.Option(help="only this one; may be repeated", autocompletion=lambda: list(NOTEBOOKS))
    ] = None,
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    settings: SetOption = None,
    workers: WorkersOption = 0,
    engine: EngineOption = "",
    share: ShareOption = "",
    force: Annotated[bool, typer.Option(help="execute even what nothing has touched")] = False,
) -> None:
    """Extract features, execute the notebooks, write reports/<corpus>/index.html.

    Run again, it redoes only what a change touches. Exit status 1 if a notebook failed; its page then ends with the
    traceback. Exit status 2 for parameters or a corpus that cannot be used.
    """
    with refusals():
        from ecmf_lib.adapters import open_corpus
        from ecmf_lib.project import open_project
        from ecmf_lib.report import parameters_of, run_notebooks

        run_on(engine, share)
        spec = relative_spec(corpus)
        name = "demo" if spec == "demo" else open_corpus(spec, base=REPO).name  # demo is made later, if need be
        if name == "demo" and spec != "demo" and output is None:
            raise SettingsError(
                f"{corpus} is called 'demo' too: give --output, so that reports/demo is not overwritten"
            )
        run = name if profile == "light" and not encoder else f"{name}-{profile}"
        target = (output or REPO / "reports" / run).resolve()
        parameters = parameters_given(spec, profile, encoder, weights, llm, settings, workers) | {
            "output": relative(target)
        }
        wanted = notebook or list(NOTEBOOKS)
        for one in wanted:
            parameters_of(one, parameters)  # refuse a bad parameter before anything long starts
        project = open_project(Settings(**{k: v for k, v in parameters.items() if k in Settings.model_fields}))
        say_ledger(project)
        if project.settings.enricher in ("llm", "local"):  # asked once: all notebooks then show the same answers
            parameters["llm"] = parameters["llm"] | {"replay": True}
            if "base_url" in parameters["llm"]:  # parameters stand in the pages, and nothing is sent from here on
                parameters["llm"]["base_url"] = "not shown"
        wanted = _applicable(wanted, project)
        outcomes = run_notebooks(
            target, parameters, notebooks=wanted, data_key=_data_key(project, target), force=force, say=echo
        )
    typer.echo(f"report: {os.path.relpath(target / 'index.html')}")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _data_key(project, target: Path) -> str:
    """Changes with what the notebooks read: the project's data, other stored profiles (01), scores beside (03)."""
    from hashlib import sha256

    from ecmf_lib.profiles import stored
    from ecmf_lib.study import beside

    sets = [s.about["fingerprint"] for sets in stored(project).values() for s in sets]
    return "|".join(
        [project.data_fingerprint, *sets, *(sha256(path.read_bytes()).hexdigest() for path in beside(target).values())]
    )


def _applicable(wanted: list[str], project) -> list[str]:
    """The notebooks that have something to show on this corpus; says why for the others."""
    several = can_be_studied(project)
    clips = project.corpus.clips.set_index("id")
    done = project.ledger.loc[project.ledger["status"] == "done", "id"]
    decoded = bool(project.encoders) and ((clips["video"] + clips["audio"]).loc[done] != "").any()
    kept = []
    for name in wanted:
        if NOTEBOOKS[name].needs_clips and not decoded:
            typer.echo(f"{name}: skipped, it follows a decoded clip and this corpus has none")
        elif NOTEBOOKS[name].needs_labels and not several:
            typer.echo(f"{name}: skipped, it needs labelled clips of two classes and two speakers (or takes) at least")
        else:
            kept.append(name)
    return kept
