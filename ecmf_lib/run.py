"""The ``ecmf`` command: what the Makefile and the notebooks do, by hand."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.config import NOTEBOOKS, PROFILES, REPO, Settings, SettingsError, engine_of_run

# What needs torch or Jupyter is imported inside the commands: `ecmf --help` and `ecmf check` answer at once.

app = typer.Typer(help="Multimodal emotion recognition: corpora, features, reports.", no_args_is_help=True)

#: Unicode's categories of what is not seen: control characters, marks of direction, halves of pairs, line separators.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")

CorpusArgument = Annotated[str, typer.Argument(help="demo, a folder, or ADAPTER:FOLDER", metavar="CORPUS")]
WeightsOption = Annotated[
    str, typer.Option(help="folder with weights (detectors, encoders by name), or the name of an insightface pack")
]
ProfileOption = Annotated[str, typer.Option(help=f"encoders of the streams: {', '.join(PROFILES)}")]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(help="STREAM=NAME[:SETTING=VALUE,…], in place of the profile's, e.g. audio=wavlm-large:layers=last4"),
]
LLMOption = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE of the language model, e.g. base_url=… (enricher llm) or folder=…")
]
EngineOption = Annotated[
    str, typer.Option(help="local, or ray: a Ray cluster at RAY_ADDRESS, or one started here; default: ECMF_ENGINE")
]
ShareOption = Annotated[
    str, typer.Option(help="URL at which the nodes of the cluster keep the store; default: ECMF_SHARE, or its folder")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of a notebook parameter, e.g. seeds=5, streams=face,audio")
]


@app.command()
def report(
    corpus: CorpusArgument = "demo",
    output: Annotated[
        Path | None, typer.Option(help="folder; default: reports/<corpus>[-<profile>] of the checkout")
    ] = None,
    notebook: Annotated[list[str] | None, typer.Option(help="only this one; may be repeated")] = None,
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    settings: SetOption = None,
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

        _run_on(engine, share)
        spec = _relative_spec(corpus)
        name = "demo" if spec == "demo" else open_corpus(spec, base=REPO).name  # demo is made later, if need be
        if name == "demo" and spec != "demo" and output is None:
            raise SettingsError(
                f"{corpus} is called 'demo' too: give --output, so that reports/demo is not overwritten"
            )
        run = name if profile == "light" and not encoder else f"{name}-{profile}"
        target = (output or REPO / "reports" / run).resolve()
        parameters = _parameters(spec, profile, encoder, weights, llm, settings) | {"output": _relative(target)}
        wanted = notebook or list(NOTEBOOKS)
        for one in wanted:
            parameters_of(one, parameters)  # refuse a bad parameter before anything long starts
        project = open_project(Settings(**{k: v for k, v in parameters.items() if k in Settings.model_fields}))
        _say_ledger(project)
        if project.settings.enricher in ("llm", "local"):  # asked once: all notebooks then show the same answers
            parameters["llm"] = parameters["llm"] | {"replay": True}
            if "base_url" in parameters["llm"]:  # parameters stand in the pages, and nothing is sent from here on
                parameters["llm"]["base_url"] = "not shown"
        wanted = _applicable(wanted, project)
        outcomes = run_notebooks(
            target, parameters, notebooks=wanted, data_key=_data_key(project, target), force=force, say=_echo
        )
    typer.echo(f"report: {os.path.relpath(target / 'index.html')}")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _run_on(engine: str, share: str) -> None:
    """Pass the options on to all that runs, the kernels of notebooks too."""
    for name, value in {"ECMF_ENGINE": engine, "ECMF_SHARE": share}.items():
        if value:
            os.environ[name] = value
    engine_of_run("")  # refused before anything long starts


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
    data, _ = project.samples()
    several = data is not None and len(set(project.corpus.groups(data.ids)[0])) > 1 and len(set(data.labels)) > 1
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


@app.command()
def extract(
    corpus: CorpusArgument = "demo",
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    settings: SetOption = None,
    engine: EngineOption = "",
    share: ShareOption = "",
) -> None:
    """Decode every clip and store its features; goes on where an earlier run stopped."""
    with refusals():
        from ecmf_lib.config import check_parameters
        from ecmf_lib.project import open_project

        _run_on(engine, share)
        parameters = _parameters(_relative_spec(corpus), profile, encoder, weights, llm, settings)
        _say_ledger(open_project(check_parameters("01_extract_features", parameters)))


@app.command()
def check(corpus: CorpusArgument) -> None:
    """Check a manifest: all its problems at once, each with its row; or what it holds."""
    with refusals():
        from ecmf_lib.adapters import open_corpus

        opened = open_corpus(_relative_spec(corpus), base=REPO)
    unit = opened.groups()[1]
    typer.echo(f"{opened.name}: {len(opened)} clips, {len(opened.left_out)} left out; folds would hold {unit}s apart")
    told = [column for column in ("split", "part", "label") if column in opened.clips]  # part: of a published split
    typer.echo(opened.clips.groupby(told).size().to_string())
    for reason, count in opened.left_out["reason"].value_counts().items():
        _echo(f"left out, {count}: {reason}")
    for note in opened.notes:
        _echo(f"note: {note}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to; made if it is not there")],
    clips: Annotated[int, typer.Option(help="how many", min=6)] = 240,
    seed: Annotated[int, typer.Option(help="another seed gives another corpus", min=0)] = 0,
) -> None:
    """Make the demo corpus of synthetic talking clips."""
    with refusals():
        from ecmf_lib.demo import make_demo

        typer.echo(f"demo corpus: {make_demo(folder, n_clips=clips, seed=seed)}")


@app.command()
def doctor(
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    asr: Annotated[str, typer.Option(help="speech recogniser that is to be used, e.g. whisper-small")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub about what is missing")] = False,
) -> None:
    """Say what this machine has, what each encoder of a profile needs, and whether the profile can run now.

    Exit status 0 if it can, 1 if not (the last lines say what to do), 2 for an unknown profile, encoder or setting.
    """
    with refusals():
        from ecmf_lib.doctor import examine

        found = examine(profile, swaps(encoder), weights=weights or None, asr=asr, online=not offline)
    typer.echo("\n".join(found.lines) + "\n")
    for problem in found.problems:
        typer.secho(problem, fg="red")
    if found.problems:
        raise typer.Exit(1)
    typer.echo(f"profile {profile} can run on this machine")


@app.command()
def fetch(
    profile: Annotated[
        str | None, typer.Option(help="all encoders of it; default: base, or none with --encoder")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="NAME of an encoder or speech recogniser, or STREAM=NAME; may be repeated")
    ] = None,
    weights: WeightsOption = "",
) -> None:
    """Download the weights of a profile ahead of time, for machines that then work without a network.

    They go to the hub's cache (HF_HOME); what lies in the weights folder is not downloaded. Exit status 1 if something
    could not be had; what has been downloaded stays.
    """
    with refusals():
        from ecmf_lib.fetch import cards_of
        from ecmf_lib.fetch import fetch as fetch_weights

        cards = cards_of(profile or (None if encoder else "base"), encoder or ())
        problems = fetch_weights(cards, weights or None, say=typer.echo)
    for problem in problems:
        typer.secho(problem, err=True, fg="red")
    if problems:
        raise typer.Exit(1)


@app.command("stand-ins")
def stand_ins(
    folder: Annotated[Path, typer.Argument(help="weights folder to write into; made if it is not there")],
    profile: ProfileOption = "base",
    encoder: EncoderOption = None,
    real_size: Annotated[bool, typer.Option("--real-size", help="as large as the published, to measure speed")] = False,
) -> None:
    """Write random weights in the real formats, to rehearse a profile without a download.

    Then: ecmf report --profile base --weights FOLDER. The features mean nothing and reports call them random weights.
    """
    with refusals():
        from ecmf_lib.encoders import profile as encoders_of
        from ecmf_lib.encoders.stand_ins import write

        for made in encoders_of(profile, swaps(encoder)).values():
            if card := getattr(made, "card", None):
                typer.echo(f"{made.name}: {write(card, folder, size='real' if real_size else 'tiny')}")


@app.command()
def predict(
    path: Annotated[Path, typer.Argument(help="a video or audio file, or a folder with such")],
    bundle: Annotated[Path, typer.Option(help="folder of a trained bundle, as notebook 05 writes it")],
    output: Annotated[Path, typer.Option(help="folder for predictions.csv, .parquet and report.html")] = Path(
        "predictions"
    ),
    transcripts: Annotated[
        Path | None, typer.Option(help="csv with id,transcript; else a .txt file beside each clip is read")
    ] = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    device: Annotated[str, typer.Option(help="where models run; auto = a GPU if any")] = "auto",
    workers: Annotated[int, typer.Option(help="decode processes; 0 = one a core", min=0)] = 0,
) -> None:
    """Predict clips with a trained bundle: probabilities, stream weights, a small report.

    Features are made with the encoders and settings that the bundle was trained with; another version is refused.
    Exit status 0 if any clip was predicted, 1 if none; a bad file is listed with its reason.
    """
    with refusals():
        from ecmf_lib.bundle import Bundle
        from ecmf_lib.predicting import predict_path, told

        table = predict_path(
            Bundle.load(bundle),
            path,
            output,
            transcripts=transcripts,
            weights=_weights(weights),
            llm=language_model(llm),
            device=device,
            workers=workers,
        )
    for line in told(table):
        typer.echo(line)
    typer.echo(f"report: {os.path.relpath(output / 'report.html')}")
    if (table["predicted"] == "").all():
        raise typer.Exit(1)


@app.command()
def submit(
    corpus: Annotated[
        str | None, typer.Argument(help="demo, a folder, or ADAPTER:FOLDER; its test clips are predicted")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="folder of a trained bundle, as notebook 05 writes it")] = None,
    output: Annotated[Path, typer.Option(help="csv to write; a parquet of the same name goes beside it")] = Path(
        "submission.csv"
    ),
    check: Annotated[Path | None, typer.Option(help="only check this submission against --candidates")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="csv with a column name; default: the corpus's test clips")
    ] = None,
    weights: WeightsOption = "",
    llm: LLMOption = None,
    device: Annotated[str, typer.Option(help="where models run; auto = a GPU if any")] = "auto",
    workers: Annotated[int, typer.Option(help="decode processes; 0 = one a core", min=0)] = 0,
) -> None:
    """Write the submission name,discrete for a corpus's candidates; or check any file with --check.

    ecmf submit --check FILE --candidates FILE names every problem, with its row; exit status 1 if there is one.
    """
    with refusals():
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
            given = {"weights": _weights(weights), "device": device, "workers": workers}
            settings = settings_of(trained, _relative_spec(corpus), llm=language_model(llm), **given)
            made = submit_project(trained, open_project(settings), output, names)
            problems, rows = made.problems, len(made.table)
            typer.echo(f"written: {made.path}, {made.parquet}")
            if made.filled:
                typer.echo(f"{made.filled} candidates could not be predicted and got '{made.commonest}', for example:")
                for row in made.table[made.table["filled"]].head(5).itertuples():
                    typer.echo(f"  {shown(row.id)}: {shown(row.reason)}")
    for problem in problems.itertuples():
        place = f"row {problem.row}" if problem.row else "file"
        typer.secho(f"{place}, {shown(problem.name) or '-'}: {problem.problem}", fg="red")
    if len(problems):
        typer.echo(f"{len(problems)} problem(s)")
        raise typer.Exit(1)
    typer.echo(f"ok, {rows} rows")


def _weights(weights: str) -> str:
    """The option as settings hold it: a pack keeps its name, a folder is relative to the checkout."""
    from ecmf_lib.faces import INSIGHTFACE_PACKS

    return _relative(Path(weights)) if weights and weights not in INSIGHTFACE_PACKS else weights


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the user can mend into one readable message and exit status 2, without a traceback."""
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
        _echo(str(error), err=True, fg="red")
        raise typer.Exit(2) from None


def _echo(text: str, **look) -> None:
    """To the terminal, which obeys control characters: those from files and servers are spelt out."""
    spelt = (f"\\u{ord(c):04x}" if unicodedata.category(c) in _UNSEEN and c not in "\n\t" else c for c in text)
    typer.secho("".join(spelt), **look)


def _say_ledger(project) -> None:
    failed = project.ledger[project.ledger["status"] == "failed"]
    done = len(project.ledger) - len(failed)
    left_out = len(project.corpus.left_out)
    typer.echo(f"{project.corpus.name}: {done} clips done, {len(failed)} failed, {left_out} left out")
    if project.enriched is not None:
        _echo(f"enrichment: {project.provenance()['enrichment']}")
    for row in failed.head(10).itertuples():
        _echo(f"  {row.id}: {row.reason}")


def _assignments(pairs: list[str] | None) -> dict:
    """``["seeds=5", "clip=7", "streams=face,audio"]`` → ``{"seeds": 5, "clip": "7", "streams": ["face", "audio"]}``.

    A text stays one, whatever it looks like. In a list, a name with a comma in it stands in double quotes.
    """
    fields = {name: field for model in NOTEBOOKS.values() for name, field in model.model_fields.items()}
    given = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign:
            raise SettingsError(f"--set {pair}: expected NAME=VALUE, for example --set seeds=5")
        if name in ("corpus", "output", "profile", "encoders", "weights", "llm"):
            raise SettingsError(f"--set {pair}: the {name} is given to the command itself, see ecmf report --help")
        if name not in fields:
            raise SettingsError(f"--set {pair}: {name}: unknown; the notebooks take {', '.join(sorted(fields))}")
        kind = fields[name].annotation
        if kind in (list[str], list[float]):
            listed = _cells(pair, value)
            entries = [entry.strip() for entry in listed if entry.strip()]
            given[name] = entries if kind == list[str] else [_number(entry) for entry in entries]
        elif kind is float:
            given[name] = _number(value)
        else:
            given[name] = int(value) if kind is int and re.fullmatch("-?[0-9]{1,20}", value) else value
    return given


def swaps(options: list[str] | None) -> dict[str, dict]:
    """``["audio=wavlm-large:layers=last4,chunk=10"]`` → ``{"audio": {"name": …, "layers": "last4", "chunk": 10}}``."""
    given = {}
    for option in options or []:
        stream, sign, rest = option.partition("=")
        name, _, listed = rest.partition(":")
        pairs = [pair.partition("=") for pair in listed.split(",") if listed]
        if not sign or not all(key and mark for key, mark, _ in pairs):
            raise SettingsError(f"--encoder {option}: expected STREAM=NAME or STREAM=NAME:SETTING=VALUE,SETTING=VALUE")
        given[stream] = ({"name": name} if name else {}) | {key: _number(value) for key, _, value in pairs}
    return given


def language_model(pairs: list[str] | None) -> dict:
    """``["base_url=http://127.0.0.1/v1", "allow_remote=true"]`` → ``{"base_url": …, "allow_remote": True}``."""
    given = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise SettingsError(f"--llm {name}: expected NAME=VALUE, for example --llm model=qwen3")
        text = _relative(Path(value)) if name == "folder" else value
        given[name] = {"true": True, "false": False}.get(text, text if name in ("model", "folder") else _number(text))
    return given


def _cells(pair: str, value: str) -> list[str]:
    try:
        return next(csv.reader([value], skipinitialspace=True), [])
    except csv.Error as error:
        raise SettingsError(f"--set {pair[:200]}: no list ({error}); put commas between the entries") from None


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _parameters(
    spec: str,
    profile: str,
    encoder: list[str] | None,
    weights: str,
    llm: list[str] | None,
    settings: list[str] | None,
) -> dict:
    """What the command line says, as notebook parameters; a model pack keeps its name, folders become relative."""
    chosen = {"profile": profile, "encoders": swaps(encoder), "llm": language_model(llm)}
    given = {"corpus": spec} | chosen | _assignments(settings)
    if weights:
        given["weights"] = _weights(weights)
    return given


def _relative(path: Path) -> str:
    """A path as parameters hold it: relative to the checkout, so that executed notebooks name no machine's folders."""
    try:
        return Path(os.path.relpath(path.expanduser().resolve(), REPO)).as_posix()
    except (RuntimeError, ValueError) as error:  # links in a circle, ~ of somebody unknown, a NUL
        raise SettingsError(f"{path}: no such file or folder ({error}); give another path") from None


def _relative_spec(spec: str) -> str:
    """The same for a corpus: ``demo``, a path, or ``adapter:path``."""
    from ecmf_lib.adapters import ADAPTERS

    adapter, colon, folder = spec.partition(":")
    if spec == "demo":
        return spec
    if colon and adapter in ADAPTERS:
        return f"{adapter}:{_relative(Path(folder))}"
    return _relative(Path(spec))
