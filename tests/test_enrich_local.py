"""A language model in process: loaded from a folder only, the same answers as the model by hand, clean fallbacks."""

import json
import shutil

import pytest
from fault_server import clips, good_answer
from tiny_llm import NO_SYSTEM, write_tiny_llm

from ecmf_lib.cues import Cues, describe
from ecmf_lib.enrich import EnrichError, LocalEnricher, enrich, estimate, spent
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_local import LocalModel
from ecmf_lib.enrich_prompt import load_prompt
from ecmf_lib.enrich_talk import Talk


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


def test_nonsense_ends_in_clean_fallbacks_and_is_kept(tiny, tmp_path):
    cues = clips(3) + clips(2, language="zh") + [Cues("none", "", "en")]
    enricher = LocalEnricher(tiny, max_tokens=8, batch=2, device="cpu")
    cache = tmp_path / "answers.sqlite"
    enriched = enrich(cues, enricher, cache=cache, progress=False)
    assert [one.id for one in enriched] == [clip.id for clip in cues]
    assert [one.text for one in enriched] == [describe(clip) for clip in cues]
    assert {one.state for one in enriched} == {"fallback"}
    assert all("; repair: " in one.reason for one in enriched[:-1])
    assert spent(cues, enricher, cache=cache).requests == 10
    assert estimate(cues, enricher, cache=cache).requests == 0
    replay = LocalEnricher(tiny, max_tokens=8, replay=True)
    assert enrich(cues, replay, cache=cache, progress=False) == enriched
    with pytest.raises(EnrichError, match="clip 'clip0004'"):
        enrich(clips(6)[4:], replay, cache=cache, progress=False)


def test_a_batch_gives_the_answers_of_the_model_by_hand(tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    enricher = LocalEnricher(tiny, max_tokens=6, device="cpu")
    talks = [Talk(clip, enricher.setup) for clip in [*clips(2), Cues("long", "word " * 100, "en")]]
    requests = [talk.request for talk in talks]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    expected = []
    for request in requests:
        ids = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        with torch.inference_mode():
            made = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        expected.append((tokenizer.decode(made, skip_special_tokens=True), ids.shape[1]))
    replies = LocalModel(enricher).generate(requests)
    assert [(reply.text, reply.tokens_in) for reply in replies] == expected
    assert all(reply.tokens_out <= 6 and reply.finish in ("stop", "length") for reply in replies)


def test_a_good_answer_is_enriched(tiny, monkeypatch):
    """The way of an answer that is of use; a model that gives one is too large for a test."""

    def generate(self, requests):
        from ecmf_lib.enrich_talk import Reply

        texts = [json.dumps(good_answer(json.loads(request.data))) for request in requests]
        return [Reply(text if request.answer else "hm", "stop") for text, request in zip(texts, requests, strict=True)]

    monkeypatch.setattr(LocalModel, "generate", generate)
    enriched = enrich(clips(5), LocalEnricher(tiny, batch=2), cache=None, progress=False)
    assert [one.state for one in enriched] == ["repaired"] * 5
    assert enriched[0].by == f"{LocalEnricher(tiny).setup.model}, prompt v1.en"


@pytest.mark.parametrize("template", [None, NO_SYSTEM])
def test_without_a_template_or_a_system_role(tmp_path, template):
    folder = write_tiny_llm(tmp_path / "tiny", template=template)
    model = LocalModel(LocalEnricher(folder, device="cpu"))
    request = Talk(clips(1)[0], LocalEnricher(folder).setup).request
    chat = model._chat(request)
    assert load_prompt("v1", "en").instructions in chat and request.data in chat
    assert chat.startswith("<|user|>" if template else "You study")


def test_a_clip_that_does_not_fit_falls_back(tmp_path):
    room = len(load_prompt("v1", "en").instructions.encode()) + 500  # a byte is a token
    folder = write_tiny_llm(tmp_path / "tiny", room=room)
    cues = [*clips(1), Cues("long", "word " * 200, "en")]
    short, long = enrich(cues, LocalEnricher(folder, max_tokens=4), cache=None, progress=False)
    assert f"too long for the model, which has room for {room} tokens" in long.reason
    assert "too long" not in short.reason.split(";")[0]


def test_model_is_known_by_its_content(tiny, tmp_path):
    moved = shutil.copytree(tiny, tmp_path / "tiny")
    other = write_tiny_llm(tmp_path / "other" / "tiny", seed=1)
    assert LocalEnricher(moved).setup == LocalEnricher(tiny).setup != LocalEnricher(other).setup


def _drop(folder):
    (folder / "model.safetensors").unlink()


def _cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def _pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('it ran')")


def _no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _no_config(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("harm", [_drop, _cut, _pickle, _code, _no_tokenizer, _no_config])
def test_unfit_folders_are_refused_in_words(tiny, tmp_path, harm):
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    harm(folder)
    with pytest.raises(EnrichError, match=str(folder)):
        enrich(clips(1), LocalEnricher(folder), cache=None, progress=False)


def test_settings_are_checked(tiny, tmp_path):
    with pytest.raises(EnrichError, match="expected"):
        LocalEnricher(tmp_path / "nothing")
    with pytest.raises(EnrichError, match="batch = 0"):
        LocalEnricher(tiny, batch=0)
    with pytest.raises(EnrichError, match="no prompt"):
        LocalEnricher(tiny, prompt="v9")


def test_replies_of_duplicates_in_one_batch(tiny):
    """The same request twice in a batch (a batch is never made so by enrich, but may be) gets one reply each."""
    enricher = LocalEnricher(tiny, max_tokens=4, device="cpu")
    talks = [Talk(clips(1)[0], enricher.setup) for _ in range(2)]
    with Replies(None) as replies:
        LocalModel(enricher).answer(talks, replies)
    assert all(talk.request.answer is not None for talk in talks)
