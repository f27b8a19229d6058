"""What commands say: to people in words, to scripts as one JSON object, and what cannot be done without a traceback."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import typer

from ecmf_lib.config import SettingsError, engine_of_run
from ecmf_lib.pages import UNSEEN, spelt_out

#: What a terminal obeys: what is not seen, and separators of lines.
_UNSEEN = (*UNSEEN, "Zl", "Zp")


@contextmanager
def refusals(answer: dict | None = None) -> Iterator[None]:
    """Turn what the user can mend into one readable message and exit status 2, without a traceback.

    Parameters
    ----------
    answer : dict, optional
        Of :func:`answering`: it then holds the message as "error", and nothing else.
    """
    from ecmf_lib.bundle_files import BundleError
    from ecmf_lib.cluster_session import ClusterError
    from ecmf_lib.corpus import CorpusError
    from ecmf_lib.encoders import EncoderError
    from ecmf_lib.enrich_prompt import EnrichError
    from ecmf_lib.faces import DetectorError
    from ecmf_lib.model_stage import ModelError
    from ecmf_lib.samples import DataError
    from ecmf_lib.shards import StoreError
    from ecmf_lib.workers import WorkerError

    try:
        yield
    except (
        SettingsError,
        BundleError,
        ClusterError,
        CorpusError,
        DataError,
        EncoderError,
        EnrichError,
        DetectorError,
        ModelError,
        StoreError,
        WorkerError,
        OSError,
    ) as error:
        if answer is not None:
            answer.clear()
            answer["error"] = str(error)
        echo(str(error), err=True, fg="red")
        raise typer.Exit(2) from None


@contextmanager
def answering(as_json: bool) -> Iterator[dict]:
    """What the command finds, by name, for it to fill in; printed at its end as JSON if that is asked for.

    With JSON, stdout has that object and nothing else, whatever is printed meanwhile: it goes to stderr. All but ASCII
    is escaped, so that no terminal obeys what files hold.
    """
    answer: dict = {}
    if not as_json:
        yield answer
        return
    stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield answer
    except typer.Exit:  # the command's own, after it has said what it found
        print(json.dumps(plain(answer), indent=1), file=stdout)
        raise
    print(json.dumps(plain(answer), indent=1), file=stdout)


def plain(value: object) -> object:
    """As JSON has it: numbers of Python, null for NaN, tables as a list of rows, and a text for all else."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if hasattr(value, "to_dict"):
        return plain(value.to_dict("records") if hasattr(value, "columns") else value.to_dict())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def echo(text: str, **look) -> None:
    """To the terminal, which obeys control characters: those from files and servers are spelt out."""
    typer.secho(spelt_out(text, _UNSEEN, but="\n\t"), **look)


def run_on(engine: str, share: str) -> None:
    """Pass the options on to all that runs, the kernels of notebooks too."""
    for name, value in {"ECMF_ENGINE": engine, "ECMF_SHARE": share}.items():
        if value:
            os.environ[name] = value
    engine_of_run("")  # refused before anything long starts


def say_ledger(project) -> dict:
    """What became of a project's clips, in words; returned by name."""
    failed = project.ledger[project.ledger["status"] == "failed"]
    done = len(project.ledger) - len(failed)
    left_out = len(project.corpus.left_out)
    typer.echo(f"{project.corpus.name}: {done} clips done, {len(failed)} failed, {left_out} left out")
    told = {
        "corpus": project.corpus.name,
        "clips": len(project.ledger),
        "done": done,
        "failed": len(failed),
        "left_out": left_out,
        "failures": failed[["id", "reason"]],
        "encoders": {stream: found.encoder for stream, found in project.sets.items()},
        "data_fingerprint": project.data_fingerprint,
    }
    if project.enriched is not None:
        told["enrichment"] = project.provenance()["enrichment"]
        echo(f"enrichment: {told['enrichment']}")
    for row in failed.head(10).itertuples():
        echo(f"  {row.id}: {row.reason}")
    return told


def can_be_studied(project) -> bool:
    """Whether there are labelled clips of two classes and two groups (speakers, or takes) at least."""
    data, _ = project.samples()
    return data is not None and len(set(project.corpus.groups(data.ids)[0])) > 1 and len(set(data.labels)) > 1


def say_study(project, study, silent: Mapping[str, str]) -> dict:
    """What is cross-validated, in words; returned by name."""
    data, unit = study.data, study.unit
    groups = len(set(data.speakers))
    typer.echo(f"{len(data)} labelled clips in {groups} groups; folds hold {unit}s apart.")
    if study.test_fold is not None:
        typer.echo("The corpus has a published split: scores are those of its test part.")
    for stream, reason in silent.items():
        echo(f"stream {stream} is left out: {reason}")
    for note in project.corpus.notes:
        echo(f"note: {note}")
    if unit != "speaker":
        typer.echo("WARNING: this corpus does not tell several speakers apart. Scores say nothing about new people.")
    return {"labelled": len(data), "groups": groups, "folds_hold_apart": unit, "streams": list(data.streams)}
