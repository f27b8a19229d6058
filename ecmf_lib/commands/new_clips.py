"""Commands on clips without a label: predict and submit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.commands.options import (
    BundleOption,
    DeviceOption,
    JsonOption,
    LLMOption,
    WeightsOption,
    WorkersOption,
)
from ecmf_lib.commands.talk import answering, refusals
from ecmf_lib.commands.words import language_model, relative_spec, weights_of
from ecmf_lib.config import SettingsError


def predict(
    path: Annotated[Path, typer.Argument(help="a video or audio file, or a folder with such", metavar="PATH")],
    bundle: BundleOption,
    output: Annotated[Path, typer.Option(help="folder for predictions.csv, .parquet and report.html")] = Path(
        "predictions"
    ),
    transcripts: Annotated[
        Path | None, typer.Option(help="csv with id,transcript; else a .txt file beside each clip is read")
    ] = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Predict clips with a trained bundle: probabilities, stream weights, a small report.

    Features are made with the encoders and settings that the bundle was trained with; another version is refused.
    Exit status 0 if any clip was predicted, 1 if none; a bad file is listed with its reason.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.bundle import Bundle
        from ecmf_lib.predicting import predict_path, told

        trained = Bundle.load(bundle)
        table = predict_path(
            trained,
            path,
            output,
            transcripts=transcripts,
            weights=weights_of(weights),
            llm=language_model(llm),
            device=device,
            workers=workers,
        )
        for line in told(table):
            typer.echo(line)
        typer.echo(f"report: {os.path.relpath(output / 'report.html')}")
        said = table["predicted"] != ""
        answer |= {"clips": len(table), "predicted": int(said.sum()), "report": output / "report.html"}
        answer |= {"bundle": trained.digest, "predictions": table}
        if not said.any():
            raise typer.Exit(1)


def submit(
    corpus: Annotated[
        str | None,
        typer.Argument(help="demo, a folder, or ADAPTER:FOLDER; its test clips are predicted", metavar="CORPUS"),
    ] = None,
    bundle: BundleOption = None,
    output: Annotated[Path, typer.Option(help="csv to write; a parquet of the same name goes beside it")] = Path(
        "submission.csv"
    ),
    check: Annotated[Path | None, typer.Option(help="only check this submission against --candidates")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="csv with a column name; default: the corpus's test clips")
    ] = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the submission name,discrete for a corpus's candidates; or check any file with --check.

    ecmf submit --check FILE --candidates FILE names every problem, with its row; exit status 1 if there is one.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.submit import candidates as read_candidates
        from ecmf_lib.submit import check_submission, shown

        if check is not None and (candidates is None or corpus is not None or bundle is not None):
            raise SettingsError("--check FILE goes with --candidates FILE and nothing else")
        if check is None and (corpus is None or bundle is None):
            raise SettingsError("give CORPUS and --bundle FOLDER; or --check FILE and --candidates FILE")
        names = None if candidates is None else read_candidates(candidates)
        if check is not None:
            problems, rows = check_submission(check, names), len(names)
        else:
            from ecmf_lib.bundle import Bundle
            from ecmf_lib.predicting import settings_of
            from ecmf_lib.project import open_project
            from ecmf_lib.submitting import submit_project

            trained = Bundle.load(bundle)
            given = {"weights": weights_of(weights), "device": device, "workers": workers}
            settings = settings_of(trained, relative_spec(corpus), llm=language_model(llm), **given)
            made = submit_project(trained, open_project(settings), output, names)
            problems, rows = made.problems, len(made.table)
            answer |= {"submission": made.path, "parquet": made.parquet, "filled": made.filled}
            typer.echo(f"written: {made.path}, {made.parquet}")
            if made.filled:
                typer.echo(f"{made.filled} candidates could not be predicted and got '{made.commonest}', for example:")
                for row in made.table[made.table["filled"]].head(5).itertuples():
                    typer.echo(f"  {shown(row.id)}: {shown(row.reason)}")
        for problem in problems.itertuples():
            place = f"row {problem.row}" if problem.row else "file"
            typer.secho(f"{place}, {shown(problem.name) or '-'}: {problem.problem}", fg="red")
        answer |= {"ok": not len(problems), "rows": rows, "problems": problems}
        if len(problems):
            typer.echo(f"{len(problems)} problem(s)")
            raise typer.Exit(1)
        typer.echo(f"ok, {rows} rows")
