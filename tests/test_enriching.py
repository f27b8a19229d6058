"""Who writes the enrichment, as the settings say; and the texts beside the transcripts."""

from pathlib import Path

import pandas as pd
import pytest

from ecmf_lib.config import Settings, SettingsError
from ecmf_lib.corpus import make_corpus
from ecmf_lib.enrich import CuesEnricher, EnrichError, LLMEnricher
from ecmf_lib.enriching import enriched_corpus, make_enricher
from ecmf_lib.project import open_project

SERVER = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


def test_settings_name_the_enricher():
    assert make_enricher(Settings(enricher="none")) is None
    assert make_enricher(Settings()) == CuesEnricher()
    assert make_enricher(Settings(enricher="llm", llm=SERVER)) == LLMEnricher(**SERVER)


@pytest.mark.parametrize("enricher", ["llm", "cues", "none"])
def test_a_key_among_the_settings_is_refused_and_not_repeated(enricher):
    """Settings stand in executed notebooks."""
    with pytest.raises(SettingsError, match="api_key") as caught:
        make_enricher(Settings(enricher=enricher, llm=SERVER | {"api_key": "s3cret"}))
    assert "s3cret" not in str(caught.value)


def test_a_language_model_that_nobody_would_ask_is_refused():
    with pytest.raises(SettingsError, match=r"asks no language model; set enricher to llm"):
        make_enricher(Settings(llm=SERVER))


def test_another_machine_is_refused_before_clips_are_listened_to(six_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("ecmf_lib.asr.transcribe", lambda *_, **__: pytest.fail("clips were listened to"))
    remote = {"base_url": "https://llm.example/v1", "model": "m"}
    with pytest.raises(EnrichError, match="allow_remote"):
        open_project(Settings(corpus=str(six_clips), asr="whisper-small", enricher="llm", llm=remote))


def test_a_manifest_keeps_the_enrichment_that_it_has(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "transcript": ["Fine!", "Fine!"], "enrichment": ["mine", ""]})
    corpus, cues, found = enriched_corpus(make_corpus("made", Path(), table), {}, CuesEnricher(), tmp_path / "x.sqlite")
    assert corpus.clips["enrichment"].tolist() == ["mine", found["text"][1]] and "exclamation" in found["text"][1]
    assert [one.id for one in cues] == found["id"].tolist() == ["a", "b"]
