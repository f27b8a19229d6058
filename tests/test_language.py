"""Text models give what transformers gives for one text alone; what is read is data and never a control token."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ecmf_lib.encoders import get_encoder
from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.encoders.stand_ins_language import WRITERS
from ecmf_lib.encoders.weights import WeightsError

# WordPiece and BERT; Unigram and XLM-RoBERTa; Unigram and BERT; bytes and a causal decoder
NAMES = ["roberta-zh", "bge-m3", "e5-small", "qwen3-embedding"]
TEXTS = ["我没事。", "I am fine, really?", "好", "What did you say? " * 3 + "你说什么？"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Weights folder with a tiny checkpoint of each; they take 130 tokens at most (BGE-M3: 128)."""
    folder = tmp_path_factory.mktemp("weights")
    for name in NAMES:
        (folder / name).mkdir()
        WRITERS["hf-text"](CARDS[name], folder / name, "tiny", 0)
    return folder


def clip(transcript="", **others):
    nothing = np.zeros((0, 0, 0, 3), np.uint8)
    sound = np.zeros(0, np.float32)
    return replace(ClipInputs("c1", nothing, np.zeros(0), nothing, np.zeros(0, bool), sound, transcript, ""), **others)


def by_hand(folder, text):
    """Hidden states of transformers' own model and tokenizer for one text: the last, and the last four."""
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    inputs = AutoTokenizer.from_pretrained(folder, local_files_only=True)(text, return_tensors="pt")
    with torch.inference_mode():
        given = model(**inputs, output_hidden_states=True)
    return given.last_hidden_state[0].numpy(), [layer[0].numpy() for layer in given.hidden_states[-4:]]


def close(first, second, tolerance=1e-4):
    return first.shape == second.shape and np.abs(first - second).max() <= tolerance


# --- the numbers are the model's -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_the_model_alone(name, root):
    settings = {"weights": root, "pooling": "none", "prefix": ""}
    for text in TEXTS[:2]:
        last, last_four = by_hand(root / name, text)
        steps = get_encoder(name, layers="last", **settings).encode(clip(text))
        assert close(steps, last) and np.ptp(steps, axis=0).min() > 1e-3
        assert close(get_encoder(name, layers="last4", **settings).encode(clip(text)), sum(last_four))


@pytest.mark.parametrize("name", ["roberta-zh", "qwen3-embedding"])
def test_poolings(name, root):
    steps = by_hand(root / name, TEXTS[1])[0].astype(np.float64)
    cosine = steps @ steps.mean(0) / np.linalg.norm(steps, axis=1) / np.linalg.norm(steps.mean(0))
    weights = np.exp(cosine / 0.1) / np.exp(cosine / 0.1).sum()
    expected = {
        "mean": steps.mean(0),
        "mean+std": np.concatenate([steps.mean(0), steps.std(0)]),
        "attention": weights @ steps,
        "first": steps[0],
        "last": steps[-1],
    }
    for pooling, features in expected.items():
        encoder = get_encoder(name, weights=root, layers="last", pooling=pooling)
        assert encoder.level == "clip" and encoder.dim == len(features)
        assert close(encoder.encode(clip(TEXTS[1])), features, 1e-5), pooling


def test_each_model_pools_as_its_authors_do(root):
    last = by_hand(root / "qwen3-embedding", TEXTS[0])[0]
    assert close(get_encoder("qwen3-embedding", weights=root).encode(clip(TEXTS[0])), last[-1])
    assert close(get_encoder("bge-m3", weights=root).encode(clip(TEXTS[0])), by_hand(root / "bge-m3", TEXTS[0])[0][0])
    expected = by_hand(root / "e5-small", "query: " + TEXTS[0])[0].mean(0)
    assert close(get_encoder("e5-small", weights=root).encode(clip(TEXTS[0])), expected), "with its prefix"


# --- company and length change nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["last", "last4"])
@pytest.mark.parametrize("name", NAMES)
def test_batching_changes_nothing(name, layers, root):
    encoder = get_encoder(name, weights=root, pooling="none", layers=layers)
    together = encoder.run([encoder.prepare(clip(text)) for text in TEXTS])
    for text, steps in zip(TEXTS, together, strict=True):
        assert close(encoder.encode(clip(text)), steps)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_runs_and_stays_close(name, root, monkeypatch):
    full, half = (get_encoder(name, weights=root) for _ in range(2))
    monkeypatch.setattr(half, "_dtype", lambda device: torch.float16)  # as on a GPU
    for text, features in zip(TEXTS, half.run([half.prepare(clip(text)) for text in TEXTS]), strict=True):
        expected = full.encode(clip(text))
        assert features.dtype == np.float32 and close(features, expected, 0.02 * np.abs(expected).max())
        assert not np.array_equal(features, expected)


def long_text(words=60):
    return " ".join(f"word{number}" for number in range(words))


@pytest.mark.parametrize("name", NAMES)
def test_long_texts_lose_nothing(name, root):
    encoder = get_encoder(name, weights=root, pooling="none", prefix="")
    text = long_text()
    ids = AutoTokenizer.from_pretrained(root / name)(text).input_ids
    prepared = encoder.prepare(clip(text))
    limit = 128 if name == "bge-m3" else 130
    assert len(ids) > 2 * limit and max(len(item) for item in prepared.items) == limit
    kept = [item[first:last] for item, (first, last) in zip(prepared.items, prepared.keep, strict=True)]
    assert np.concatenate(kept).tolist() == ids, "each token once, the model's own around all of them"
    assert len(encoder.encode(clip(text))) == len(ids)
    around = encoder.prepare(clip("a")).items[0].tolist()
    for item in prepared.items:
        assert item[0] == around[0] or name == "qwen3-embedding"
        assert item[-1] == around[-1], "each window is a text to the model"


def test_windows_of_a_long_text_by_hand(root):
    settings = {"weights": root, "window": 60, "overlap": 10, "layers": "last"}
    encoder = get_encoder("roberta-zh", pooling="none", **settings)
    prepared = encoder.prepare(clip(long_text(20)))
    model = AutoModel.from_pretrained(root / "roberta-zh").eval()
    with torch.inference_mode():
        alone = [model(torch.from_numpy(item)[None]).last_hidden_state[0].numpy() for item in prepared.items]
    expected = [steps[first:last] for steps, (first, last) in zip(alone, prepared.keep, strict=True)]
    assert close(encoder.encode(clip(long_text(20))), np.concatenate(expected)) and len(alone) > 2
    for pooling, place in [("first", 0), ("last", -1)]:
        features = get_encoder("roberta-zh", pooling=pooling, **settings).encode(clip(long_text(20)))
        assert close(features, np.mean([steps[place] for steps in alone], axis=0)), "no window is left out"


# --- text is data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_plain_text_has_the_tokens_of_the_real_tokenizer(name, root):
    tokenizer = AutoTokenizer.from_pretrained(root / name)
    encoder = get_encoder(name, weights=root, prefix="")
    for text in [*TEXTS, "  two  spaces\tand\na line ", "Ｆｕｌｌ　ｗｉｄｔｈ", "naïve 😀 don't 3,14 — “ja”", "龘䶮"]:
        assert encoder.prepare(clip(text)).items[0].tolist() == tokenizer(text).input_ids, text


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_a_transcript_are_words(name, root):
    tokenizer = AutoTokenizer.from_pretrained(root / name)
    encoder = get_encoder(name, weights=root)
    own = encoder.prepare(clip("a")).items[0]
    control = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
    for written in ["<s>", "</s>", "[CLS]", "[MASK]", "<mask>", "<|im_end|>", "<|endoftext|>", "<think>", "{{x}} {0}"]:
        ids = encoder.prepare(clip(f"he said {written} twice")).items[0].tolist()
        found = [token for token in ids if token in control]
        assert found == [token for token in own if token in control], f"{written}: only the model's own"
        assert len(ids) > len(own) + 8


# --- which text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roberta-zh", "char-ngram"])
def test_transcript_and_enrichment_are_separate_streams(name, root):
    given = {} if name == "char-ngram" else {"weights": root}
    transcript, enrichment = get_encoder(name, **given), get_encoder(name, **given, reads="enrichment")
    assert (transcript.stream, enrichment.stream) == ("text", "enrichment")
    assert transcript.fingerprint != enrichment.fingerprint
    one = clip("I am fine.", enrichment="She is not fine.")
    assert np.array_equal(enrichment.encode(one), transcript.encode(clip("She is not fine.")))
    for encoder, empty, reason in [
        (transcript, clip("", enrichment="x"), "empty transcript"),
        (transcript, clip("　 \n"), "empty transcript"),
        (enrichment, clip("x"), "no enrichment"),
    ]:
        with pytest.raises(MissingStream, match=f"^{reason}$"):
            encoder.encode(empty)


def test_a_text_without_tokens_is_missing(root):
    with pytest.raises(MissingStream, match="no tokens in the transcript"):
        get_encoder("roberta-zh", weights=root).prepare(clip("\u200b\u0007"))


def test_unusable_settings_are_refused():
    for name, settings in [
        ("roberta-zh", {"reads": "title"}),
        ("char-ngram", {"reads": "title"}),
        ("roberta-zh", {"layers": "own"}),
        ("roberta-zh", {"window": 8}),
        ("roberta-zh", {"window": 64, "overlap": 40}),
    ]:
        with pytest.raises(EncoderError, match=name):
            get_encoder(name, **settings)


# --- loading -------------------------------------------------------------------------------------------------------


def copied(root, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for file in (root / name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_workers_get_the_tokenizer_but_no_model_and_no_torch(root, tmp_path):
    encoders = [get_encoder(name, weights=root) for name in NAMES]
    one = clip("他说 <s> I am fine.")
    expected = [encoder.encode(one) for encoder in encoders]
    (tmp_path / "shipped").write_bytes(pickle.dumps((encoders, one)))
    script = (
        "import pickle, sys\n"
        "encoders, clip = pickle.load(open(sys.argv[1], 'rb'))\n"
        "prepared = [encoder.prepare(clip) for encoder in encoders]\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "assert not any(encoder._model for encoder in encoders)\n"
        "pickle.dump(prepared, open(sys.argv[2], 'wb'))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shipped"), str(tmp_path / "prepared")]
    subprocess.run(command, check=True, timeout=60)
    prepared = pickle.loads((tmp_path / "prepared").read_bytes())
    for encoder, inputs, features in zip(encoders, prepared, expected, strict=True):
        assert np.array_equal(encoder.run([inputs])[0], features)


def test_an_encoder_without_weights_can_travel():
    assert pickle.loads(pickle.dumps(get_encoder("roberta-zh", weights="nowhere"))).settings["layers"] == "last4"


def test_a_checkpoint_with_a_head_of_another_task(root, tmp_path):
    """As chinese-roberta-wwm-ext is published: a masked language model, without the pooler that AutoModel has."""
    from transformers import BertConfig, BertForMaskedLM

    folder = copied(root, tmp_path, "roberta-zh")
    model = BertForMaskedLM(BertConfig.from_pretrained(folder)).eval()
    model.save_pretrained(folder)
    encoder = get_encoder("roberta-zh", weights=tmp_path, pooling="none", layers="last")
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        expected = model.bert(**inputs).last_hidden_state[0].numpy()
    assert close(encoder.encode(clip(TEXTS[0])), expected)


def test_broken_checkpoints_are_named(root, tmp_path):
    folder = copied(root, tmp_path, "qwen3-embedding")
    config = json.loads((folder / "config.json").read_text())

    def refused(match, work):
        with pytest.raises(WeightsError, match=match) as caught:
            work(get_encoder("qwen3-embedding", weights=tmp_path))
        assert str(folder) in str(caught.value)

    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6, "layer_types": None}))
    refused(r"tensors are missing, e\.g\. layers\.5", lambda encoder: encoder.ready("cpu"))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    refused("not a whole checkpoint.*ecmf fetch", lambda encoder: encoder.ready("cpu"))
    (folder / "config.json").write_text(json.dumps(config | {"is_encoder_decoder": True}))
    refused("an encoder and a decoder", lambda encoder: encoder.ready("cpu"))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    refused("no usable 'hidden_size'", lambda encoder: encoder.dim)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    refused("no usable AutoTokenizer", lambda encoder: encoder.prepare(clip("x")))


def test_half_precision_is_the_checkpoints_own_kind(root, tmp_path):
    folder = copied(root, tmp_path, "qwen3-embedding")
    config = json.loads((folder / "config.json").read_text())
    for trained, expected in [("bfloat16", torch.bfloat16), ("float32", torch.float16)]:
        (folder / "config.json").write_text(json.dumps(config | {"dtype": trained}))
        encoder = get_encoder("qwen3-embedding", weights=tmp_path)
        assert encoder._dtype("cuda") == expected and encoder._dtype("cpu") == torch.float32
    assert get_encoder("qwen3-embedding", weights=tmp_path, precision="full")._dtype("cuda") == torch.float32
