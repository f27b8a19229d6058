"""Commands that learn from labels: train, as notebooks 03 and 05 do, and refine, as notebook 04 does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecmf_lib.commands.options import (
    CorpusArgument,
    EncoderOption,
    EngineOption,
    JsonOption,
    LLMOption,
    ProfileOption,
    ReviewOption,
    SetOption,
    ShareOption,
    SourceOption,
    WeightsOption,
    WorkersOption,
)
from ecmf_lib.commands.talk import answering, can_be_studied, echo, refusals, run_on, say_ledger, say_study
from ecmf_lib.commands.words import label_files, parameters, relative, relative_spec, shares
from ecmf_lib.config import FuseSettings, PredictSettings, RefineSettings, SettingsError, check_parameters, resolve

if TYPE_CHECKING:
    from ecmf_lib.project import Project
    from ecmf_lib.study import Study

#: For --rival: the whole table of notebook 03.
ALL = "all"


def train(
    corpus: CorpusArgument = "demo",
    rival: Annotated[
        list[str] | None,
        typer.Option(help="model to compare ECMF with, by its name in notebook 03, or all; repeatable"),
    ] = None,
    scores: Annotated[bool, typer.Option(help="cross-validate; --no-scores with --bundle only trains that")] = True,
    bundle: Annotated[
        Path | None, typer.Option(help="folder: train the final bundle on all labelled clips and write it there")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder for scores.csv and predictions.parquet; default: nothing is written")
    ] = None,
    source: SourceOption = None,
    review: ReviewOption = None,
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
    """Cross-validate ECMF on a corpus, and with --bundle train the final models for ecmf predict and submit.

    Scores are those of notebook 03: folds hold speakers apart, and finished folds are kept and read again. The bundle
    is that of notebook 05, with --set labels=given, refined or self-trained; --source and --review are for its labels.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.project import open_project
        from ecmf_lib.study import REFERENCE

        run_on(engine, share)
        if bundle is None and (not scores or source or review):
            raise SettingsError("--no-scores, --source and --review go with --bundle FOLDER: they are of its training")
        whole = rival == [ALL]
        others = {
            "fusions": [] if whole else rival,
            "bundle": bundle and relative(bundle),
            **label_files(source, review),
        }
        spec = relative_spec(corpus)
        given = parameters(spec, profile, encoder, weights, llm, settings, workers, **others)
        fuse, final = shares(given, FuseSettings, PredictSettings)
        if not whole:
            fuse.setdefault("fusions", [REFERENCE])  # the study takes an empty list for all of them
        fuse = check_parameters("03_fuse_and_ablate", fuse)
        if bundle is None and (idle := sorted(set(final) - set(FuseSettings.model_fields))):
            raise SettingsError(f"{', '.join(idle)}: counts for the bundle only; give --bundle FOLDER, too")
        final = check_parameters("05_predict_and_submit", final)
        project = open_project(fuse if scores else final)
        answer |= say_ledger(project)
        _refuse_unlabelled(project)
        if scores:
            answer |= _scores(project, fuse, output, whole)
        if bundle is not None:
            answer["bundle"] = _bundle(project, final)


def _refuse_unlabelled(project: Project) -> None:
    if not can_be_studied(project):
        raise SettingsError(
            f"{project.corpus.name}: it needs labelled clips of two classes and two speakers (or takes) at least"
        )


def _scores(project: Project, settings: FuseSettings, output: Path | None, whole: bool) -> dict:
    """Notebook 03's table, of the models that the settings name."""
    import pandas as pd

    from ecmf_lib import evaluate, study
    from ecmf_lib.project import Results

    case, silent = study.open_study(project, settings)
    told = say_study(project, case, silent)
    runs = study.run(case, study.models(case))
    if whole:
        runs |= study.run(case, study.two_best(evaluate.results_table(runs, n_boot=50)))
    study.close_workers()
    table = evaluate.results_table(runs, reference=study.REFERENCE, n_boot=settings.bootstrap, seed=settings.seed)
    for row in table.to_dict("records"):
        typer.echo(f"  {row['model']}: {study.with_interval(pd.Series(row))}")
    typer.echo(study.verdict(table))
    if output is not None:
        results = Results(resolve(relative(output)), project.provenance())
        results.table(table.assign(corpus=project.corpus.name), "scores")
        results.predictions(pd.concat(runs.values()))
        typer.echo(f"written: {output / 'scores.csv'}, {output / 'predictions.parquet'}")
    return told | {"seeds": settings.seeds, "folds": settings.folds, "scores": table, "output": output}


def _bundle(project: Project, settings: PredictSettings) -> dict:
    """Notebook 05's bundle."""
    from ecmf_lib import study, study_predict

    case: Study
    case, silent = study.open_study(project, settings)
    say_study(project, case, silent)
    trained, _, folder = study_predict.final_bundle(project, case, settings)
    for row in study_predict.bundle_table(trained).itertuples():
        echo(f"  {row.what}: {row.value}")
    expected = trained.about["expected"]
    typer.echo(f"expected weighted F1: {study_predict.expected(trained)}, {expected['clips']} clips: {expected['how']}")
    typer.echo(f"bundle: {os.path.relpath(folder)}")
    told = {"folder": folder, "members": len(trained.models), "labels": settings.labels, "digest": trained.digest}
    return told | {"expected": expected, "calibration": trained.about["calibration"]}


def refine(
    corpus: CorpusArgument = "demo",
    source: SourceOption = None,
    review: ReviewOption = None,
    output: Annotated[Path, typer.Option(help="folder for audit.csv, actions.csv, sources.csv and review.csv")] = Path(
        "refined"
    ),
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
    """Refine the labels of a corpus: who says what, what would be changed and why, and a csv to overrule it in.

    As notebook 04: audit.csv has the refined labels, review.csv the changed clips for a human to decide on; written
    again, it keeps the decisions. Models are trained on refined labels by ecmf train --bundle, within each training
    part; no file of labels has to be handed on, but for the review.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.project import open_project

        run_on(engine, share)
        spec, others = relative_spec(corpus), label_files(source, review)
        given = parameters(spec, profile, encoder, weights, llm, settings, workers, **others)
        chosen = check_parameters("04_refine_labels", shares(given, RefineSettings)[0])
        project = open_project(chosen)
        answer |= say_ledger(project)
        _refuse_unlabelled(project)
        answer |= _refined(project, chosen, output)


def _refined(project: Project, settings: RefineSettings, output: Path) -> dict:
    """Notebook 04 up to its csv for a human, with the same files."""
    from ecmf_lib import audit, explore, study, study_labels
    from ecmf_lib import refine as refining
    from ecmf_lib.project import Results

    case, silent = study.open_study(project, settings)
    told, data = say_study(project, case, silent), case.data
    results = Results(resolve(relative(output)), project.provenance())
    voters = study_labels.voters_of(project, data.ids, settings.sources)
    found = refining.refine(data, voters, seed=settings.seed, method=settings.method)
    quality, table = found.quality(), found.audit()
    if settings.review:
        decisions = audit.read_review(resolve(settings.review), table, data.classes)
        table = audit.apply_review(table, decisions, data.classes)
        typer.echo(f"a human decided on {len(decisions)} clips")
    limits = dict(zip(data.classes, found.thresholds.tolist(), strict=True))
    typer.echo("doubted below: " + ", ".join(f"{name} {limit:.2f}" for name, limit in limits.items()))
    actions = {name: int(count) for name, count in table["action"].value_counts().items()}
    typer.echo("clips: " + ", ".join(f"{count} {name}" for name, count in actions.items()))
    results.table(quality, "sources")
    results.table(table, "audit")
    results.table(audit.summary(table), "actions")
    if len(agreement := study_labels.pairwise_agreement(voters)):
        results.table(agreement, "agreement")
    transcripts = project.corpus.clips.set_index("id")["transcript"]
    audit.write_review(table, results.folder / "review.csv", transcripts=transcripts)
    told |= {"method": settings.method, "actions": actions, "changed": int((table["refined"] != table["given"]).sum())}
    told |= {"thresholds": limits, "sources": quality, "output": output}
    truth = explore.truth(project)
    if truth is not None:
        closer = study_labels.against_truth(table, truth.loc[data.ids, "emotion"])
        results.table(closer, "truth")
        one = told["truth"] = closer.iloc[0].to_dict()
        typer.echo(
            f"wrong labels: {one['given_error']:.1%} of the given, {one['refined_error']:.1%} of the refined ones"
        )
    typer.echo(f"written: {output / 'audit.csv'}, {output / 'review.csv'}")
    return told
