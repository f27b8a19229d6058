"""Commands on corpora: make one, check one, extract its features, have its words enriched."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.commands.options import (
    CorpusArgument,
    EncoderOption,
    EngineOption,
    JsonOption,
    LLMOption,
    ProfileOption,
    SetOption,
    ShareOption,
    WeightsOption,
    WorkersOption,
)
from ecmf_lib.commands.talk import answering, echo, refusals, run_on, say_ledger
from ecmf_lib.commands.words import parameters, relative, relative_spec
from ecmf_lib.config import REPO, SettingsError, check_parameters, resolve


def demo(
    folder: Annotated[Path, typer.Argument(help="where to; made if it is not there", metavar="FOLDER")],
    clips: Annotated[int, typer.Option(help="how many", min=6)] = 240,
    seed: Annotated[int, typer.Option(help="another seed gives another corpus", min=0)] = 0,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Make the demo corpus of synthetic talking clips.

    The same seed gives the same corpus, byte for byte. What needs it by its name, demo, makes it by itself.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.demo import make_demo
        from ecmf_lib.workers import usable_cores

        made = make_demo(folder, n_clips=clips, seed=seed, workers=workers or usable_cores())
        answer |= {"folder": made, "clips": clips, "seed": seed}
        typer.echo(f"demo corpus: {made}")


def check(corpus: CorpusArgument, as_json: JsonOption = False) -> None:
    """Check a manifest: all its problems at once, each with its row; or what it holds.

    Exit status 2 for a manifest with problems.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.adapters import open_corpus

        opened = open_corpus(relative_spec(corpus), base=REPO)
        unit = opened.groups()[1]
        typer.echo(
            f"{opened.name}: {len(opened)} clips, {len(opened.left_out)} left out; folds would hold {unit}s apart"
        )
        told = [column for column in ("split", "part", "label") if column in opened.clips]  # part: of a published split
        counts = opened.clips.groupby(told).size()
        typer.echo(counts.to_string())
        reasons = opened.left_out["reason"].value_counts()
        for reason, count in reasons.items():
            echo(f"left out, {count}: {reason}")
        for note in opened.notes:
            echo(f"note: {note}")
        answer |= {"corpus": opened.name, "clips": len(opened), "folds_hold_apart": unit, "licence": opened.licence}
        answer |= {"left_out": reasons, "notes": opened.notes, "counts": counts.rename("clips").reset_index()}


def extract(
    corpus: CorpusArgument = "demo",
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    settings: SetOption = None,
    workers: WorkersOption = 0,
    engine: EngineOption = "",
    share: ShareOption = "",
    as_json: JsonOption = False,
) -> None:
    """Decode every clip and store its features; goes on where an earlier run stopped.

    Exit status 0 also if clips failed: each is in the ledger with its reason, and the others are fit to be used.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.project import open_project

        run_on(engine, share)
        given = parameters(relative_spec(corpus), profile, encoder, weights, llm, settings, workers)
        answer |= say_ledger(open_project(check_parameters("01_extract_features", given)))


def enrich(
    corpus: CorpusArgument = "demo",
    enricher: Annotated[
        str, typer.Option(help="who spells out the cues: cues (no model), llm (a server), local (a model in process)")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="folder for enrichment.csv and states.csv; default: nothing is written")
    ] = None,
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    settings: SetOption = None,
    workers: WorkersOption = 0,
    engine: EngineOption = "",
    share: ShareOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put emotional cues beside the words of every clip; a language model's answers are kept and asked for once.

    No word leaves this machine unless you attach a server on another one and say --llm allow_remote=true.
    Reports and training then find the answers in the cache. Exit status 1 if answers failed; those clips have the
    description without a model.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib import explore_text
        from ecmf_lib.enrich_talk import NOTHING
        from ecmf_lib.project import Results, open_project

        run_on(engine, share)
        given = parameters(relative_spec(corpus), profile, encoder, weights, llm, settings, workers, enricher=enricher)
        chosen = check_parameters("02_enrich_text", given)
        if chosen.enricher == "none":
            raise SettingsError("enricher = 'none': there is nothing to do; choose from cues, llm, local")
        project = open_project(chosen)
        answer |= say_ledger(project)
        if project.enriched is None:
            raise SettingsError(f"{project.corpus.name}: its features are ready-made, so there is nothing to enrich")
        states, bill = explore_text.states(project.enriched), explore_text.bill(project)
        for row in states.itertuples():
            echo(f"{row.clips} clips: {row.state} by {row.by}" + (f", {row.reason}" if row.reason else ""))
        asked = chosen.enricher in ("llm", "local")
        typer.echo(str(bill) if asked else f"No model was asked, nothing left this machine. To ask one: {bill}")
        answer |= {"enricher": chosen.enricher, "states": states, "bill": asdict(bill), "output": output}
        if output is not None:
            results = Results(resolve(relative(output)), project.provenance())
            results.table(project.enriched, "enrichment")
            results.table(states, "states")
            typer.echo(f"written: {output / 'enrichment.csv'}")
        failed = (project.enriched["state"] == "fallback") & (project.enriched["reason"] != NOTHING)
        if asked and failed.any():
            raise typer.Exit(1)
