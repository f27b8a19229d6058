"""What a trained bundle says of clips: those of a corpus, or any media files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ecmf_lib.clip_files import clip_files
from ecmf_lib.config import ENRICHMENT, Settings
from ecmf_lib.ensemble import Bundle, BundleError
from ecmf_lib.faces import INSIGHTFACE_PACKS
from ecmf_lib.prediction_report import write_report
from ecmf_lib.project import Project, open_project
from ecmf_lib.samples import FusionData
from ecmf_lib.submit import shown

#: Of a language model, what changes its answers and names neither a machine nor a key.
_LLM = ("model", "prompt", "temperature", "max_tokens", "guided", "seed")
NOTHING = "it has none of the streams that the bundle looks at"


def about_project(project: Project, labels: str = "given") -> dict:
    """What a bundle keeps of where it comes from, and of how features were made so that new clips get the same.

    Of a language model, neither address nor folder nor further options are kept: they are given again for new clips.
    """
    settings, told = project.settings, project.provenance()
    features = {"imported": not project.encoders}
    if project.encoders:
        own_pack = settings.weights if settings.weights in INSIGHTFACE_PACKS else ""
        features |= {
            "profile": settings.profile,
            "encoders": dict(settings.encoders),
            "enricher": settings.enricher,
            "llm": {name: settings.llm[name] for name in _LLM if name in settings.llm},
            "asr": settings.asr,
            "frames": settings.frames,
            "detector": project.detector.name if project.detector else settings.detector,
            "weights": own_pack,
        }
    return {
        "corpus": project.corpus.name,
        "licence": project.corpus.licence,
        "notes": list(project.corpus.notes),
        "data_fingerprint": project.data_fingerprint,
        "seed": settings.seed,
        "labels": labels,
        "code": told["code version"],
        "python": told["python"],
        "packages": told["packages"],
        "extraction": features,
    }


def settings_of(bundle: Bundle, corpus: str, *, llm: Mapping | None = None, **given) -> Settings:
    """Settings under which new clips get the same kind of features as the bundle was trained on.

    Parameters
    ----------
    llm : mapping, optional
        What a bundle does not keep of a language model: base_url, folder, …
    **given
        weights (folder), device, workers.

    Raises
    ------
    BundleError
        If the bundle does not say how features were made.
    """
    told = dict(bundle.about.get("extraction") or {})
    imported = told.pop("imported", None)
    if imported is None:
        raise BundleError("this bundle does not say how its features were made; train it anew with notebook 05")
    told["llm"] = dict(told.get("llm") or {}) | dict(llm or {})
    own = {name: value for name, value in given.items() if value not in ("", None)}
    try:
        return Settings(**{"corpus": corpus} | told | own)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise BundleError(
            "the bundle's way of making features is none that this version knows; train it anew\n  "
            + "\n  ".join(lines)
        ) from None


def predict_clips(bundle: Bundle, source: Project | Mapping, clips: pd.DataFrame) -> pd.DataFrame:
    """Predict clips whose features are stored.

    Parameters
    ----------
    bundle : Bundle
    source : Project or mapping of str to FeatureSet
        A project also knows which clips failed in the extraction: these are not predicted, as they are not trained on.
    clips : DataFrame
        With ``id``, each once: rows of a corpus's table.

    Returns
    -------
    DataFrame
        One row a clip, in their order: id, predicted ("" if nothing can be said), ``p_<class>``, ``w_<stream>`` (NaN
        where nothing is predicted or the model has no weights), missing (streams that the clip lacks, joined by ", "),
        reason (why nothing is predicted).

    Raises
    ------
    BundleError
        For features of other encoders (see :meth:`ecmf_lib.ensemble.Bundle.check_encoders`), another enricher or other
        classes.
    """
    sets = source.sets if isinstance(source, Project) else dict(source)
    failed: dict[str, str] = {}
    if isinstance(source, Project):
        _check_project(bundle, source)
        rows = source.ledger[source.ledger["status"] == "failed"]
        failed = dict(zip(rows["id"], rows["reason"], strict=True))
    bundle.check_encoders(sets)
    ids = clips["id"].tolist()
    chances = np.full((len(ids), len(bundle.classes)), np.nan)
    weights = np.full((len(ids), len(bundle.streams)), np.nan)
    predicted, missing, reasons = [""] * len(ids), [""] * len(ids), [""] * len(ids)
    if ids:
        named = clips[["id"]].assign(speaker=clips["speaker"] if "speaker" in clips else "")
        own = {name: sets[name] for name in bundle.streams}
        data = FusionData.without_labels(named, own, bundle.classes, steps=int(bundle.about.get("steps", 0)))
        there, why = data.mask(), {}
        usable = there.any(1) & ~np.isin(ids, list(failed))
        if usable.any():
            chances[usable], weights[usable] = bundle.predict(data.select(usable))
        for i, clip in enumerate(ids):
            missing[i] = ", ".join(name for name, has in zip(bundle.streams, there[i], strict=True) if not has)
            if usable[i]:
                predicted[i] = bundle.classes[int(chances[i].argmax())]
            else:
                why = why or _reasons(own)
                said = [f"{stream}: {known.get(clip) or 'missing'}" for stream, known in why.items()]
                reasons[i] = failed.get(clip) or f"{NOTHING} ({'; '.join(said)})"
    table = {"id": ids, "predicted": predicted}
    table |= {f"p_{name}": chances[:, i] for i, name in enumerate(bundle.classes)}
    table |= {f"w_{name}": weights[:, i] for i, name in enumerate(bundle.streams)}
    return pd.DataFrame(table | {"missing": missing, "reason": reasons})


def _check_project(bundle: Bundle, project: Project) -> None:
    if tuple(project.corpus.classes) != tuple(bundle.classes):
        raise BundleError(
            f"corpus '{project.corpus.name}' has the classes {', '.join(project.corpus.classes)}, the bundle "
            f"{', '.join(bundle.classes)}; give a bundle that was trained for these classes"
        )
    told = bundle.about.get("extraction") or {}
    if ENRICHMENT in bundle.streams and told.get("enricher") not in (None, project.settings.enricher):
        raise BundleError(
            f"stream '{ENRICHMENT}': trained on what the enricher '{told['enricher']}' writes, here it is "
            f"'{project.settings.enricher}'; set enricher = '{told['enricher']}', or train the bundle anew"
        )


def _reasons(sets: Mapping) -> dict[str, dict[str, str]]:
    """Stream → clip → the reason that the set gives for having nothing of it."""
    found = {}
    for stream, features in sets.items():
        index = features.index[["id", "reason"]]
        found[stream] = dict(zip(index["id"], index["reason"], strict=True))
    return found


def predict_path(
    bundle: Bundle,
    path: Path,
    output: Path,
    *,
    transcripts: Path | None = None,
    weights: str = "",
    llm: Mapping | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict media files: decode, extract with the bundle's encoders, predict, write a report.

    Parameters
    ----------
    bundle : Bundle
    path : Path
        A file, or a folder with such (also below it).
    output : Path
        Folder for ``predictions.csv``, ``predictions.parquet`` and ``report.html``.
    transcripts : Path, optional
        See :func:`ecmf_lib.clip_files.clip_files`.
    weights, llm, device, workers
        As the settings of notebooks; the rest is as the bundle was trained.

    Returns
    -------
    DataFrame
        As :func:`predict_clips`, with file, transcript and note; files that cannot be clips stand last.

    Raises
    ------
    CorpusError, BundleError, EncoderError, DetectorError
        For what concerns all files. A bad file is in the table with its reason.
    """
    if (bundle.about.get("extraction") or {}).get("imported"):
        raise BundleError(
            f"the bundle was trained on ready-made features ({', '.join(bundle.streams)}): there is no encoder for new "
            "files; import their features as a corpus and use ecmf submit --bundle, or train on clips"
        )
    settings = settings_of(bundle, "files", llm=llm, weights=weights, device=device, workers=workers)
    given = clip_files(path, transcripts)
    tables = []
    if given.corpus is not None:
        project = open_project(settings, corpus=given.corpus, progress=progress)
        table = predict_clips(bundle, project, project.corpus.clips)
        table.insert(1, "file", table["id"].map(given.files))
        words = project.corpus.clips.set_index("id")["transcript"]
        table["transcript"] = table["id"].map(words)
        table["note"] = table["id"].map(lambda clip: given.notes.get(clip, ""))
        tables.append(table)
    if len(given.failed):
        tables.append(given.failed.assign(id="", predicted="", missing="", transcript="", note=""))
    table = pd.concat(tables, ignore_index=True)
    table = table.reindex(columns=_report_columns(bundle))
    write_report(table, Path(output), bundle, given.corpus)
    return table


def _report_columns(bundle: Bundle) -> list[str]:
    numbers = [*(f"p_{name}" for name in bundle.classes), *(f"w_{name}" for name in bundle.streams)]
    return ["id", "file", "predicted", *numbers, "missing", "reason", "transcript", "note"]


def told(table: pd.DataFrame, most: int = 20) -> list[str]:
    """A line for each clip of :func:`predict_path`, for a terminal."""
    lines = []
    for row in table.head(most).to_dict("records"):
        if row["predicted"]:
            lines.append(f"{shown(row['file'])}: {row['predicted']} ({row['p_' + row['predicted']]:.2f})")
        else:
            lines.append(f"{shown(row['file'])}: not predicted, {shown(row['reason'])}")
    return lines + ([f"… and {len(table) - most} more"] if len(table) > most else [])
