"""Enrichment as a run needs it: which measures the cues are made from, who writes the text, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ecmf_lib.config import ENRICHMENT, Settings, SettingsError, resolve
from ecmf_lib.corpus import Corpus
from ecmf_lib.cues import Cues, find_cues
from ecmf_lib.encoders import Encoder, get_encoder
from ecmf_lib.enrich import CuesEnricher, Enricher, LLMEnricher, LocalEnricher, enrich, enrichment_table
from ecmf_lib.store import FeatureSet

#: Encoders whose features cues are made from; none of them needs a download.
MEASURES = ("egemaps", "speech-timing", "face-measures")


def make_enricher(settings: Settings) -> Enricher | None:
    """Who writes the enrichment, as the settings say; None for nobody.

    Raises
    ------
    SettingsError
        If ``llm`` has a name that the enricher does not know, lacks one that it needs, or is given for no model.
    EnrichError
        As the enrichers; above all for a server on another machine without ``allow_remote``.
    """
    if settings.llm and settings.enricher not in ("llm", "local"):
        raise SettingsError(
            f"llm, with {', '.join(settings.llm)}: enricher = '{settings.enricher}' asks no language model; "
            "set enricher to llm (a server) or local (a folder), or leave llm out"
        )
    if settings.enricher == "none":
        return None
    if settings.enricher == "cues":
        return CuesEnricher()
    kind, given = {"llm": LLMEnricher, "local": LocalEnricher}[settings.enricher], dict(settings.llm)
    if "folder" in given:
        given["folder"] = resolve(str(given["folder"]))
    try:
        return kind(**given)
    except TypeError as error:
        # names only: a key that somebody wrote here must not end in a log
        raise SettingsError(f"llm, with {', '.join(given) or 'nothing'}: {error}; see {kind.__name__}") from None


def with_measures(encoders: Mapping[str, Encoder]) -> dict[str, Encoder]:
    """Encoders of a profile, and those that the cues need beside them, so that a clip is decoded once for all."""
    there = {encoder.name for encoder in encoders.values()}
    return dict(encoders) | {name: get_encoder(name) for name in MEASURES if name not in there}


def reader_of(encoders: Mapping[str, Encoder], weights: Path | None) -> Encoder:
    """The encoder of the transcripts, reading the enrichment: a stream of its own beside the raw words."""
    text = encoders["text"]
    return get_encoder(text.name, weights=weights, **text.settings | {"reads": ENRICHMENT})


def enriched_corpus(
    corpus: Corpus,
    sets: Mapping[str, FeatureSet],
    enricher: Enricher,
    cache: Path,
    *,
    progress: bool = True,
    engine: str = "local",
) -> tuple[Corpus, list[Cues], pd.DataFrame]:
    """Find cues, have them spelled out, and put the texts beside the transcripts.

    Parameters
    ----------
    corpus : Corpus
        A clip that has an enrichment in its manifest keeps it.
    sets : mapping
        Encoder name → features, of those in :data:`MEASURES` that there are.
    cache : Path
        SQLite file with a language model's raw answers.
    engine : {"local", "ray"}
        As for :func:`ecmf_lib.enrich.enrich`.

    Returns
    -------
    corpus : Corpus
        With a column ``enrichment``.
    cues : list of Cues
        In manifest order.
    table : DataFrame
        As :func:`ecmf_lib.enrich.enrichment_table`, in manifest order.
    """
    cues = find_cues(corpus, sets)
    table = enrichment_table(enrich(cues, enricher, cache=cache, progress=progress, engine=engine))
    clips = corpus.clips.copy()
    given = clips[ENRICHMENT] if ENRICHMENT in clips else pd.Series("", index=clips.index)
    clips[ENRICHMENT] = given.where(given != "", table["text"].to_numpy())
    return replace(corpus, clips=clips), cues, table
