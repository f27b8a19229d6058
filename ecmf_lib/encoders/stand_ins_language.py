"""Stand-ins for speech and text models: random weights in the real format, with the real processor files.

Their features mean nothing. They are for tests and dry runs ("tiny": the architecture of the published model with a
few small layers) and for measuring speed ("real": its sizes). ``config.json`` says ``"ecmf_stand_in": true``.
"""

from __future__ import annotations

from pathlib import Path

from ecmf_lib.encoders.cards import Card

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
# five layers, so that the last four are not all there is
_TINY = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 64}
_XLMR = {"vocab_size": 250_002, "max_position_embeddings": 514}

# Name of the card → sizes of the published text model.
_TEXT_SIZES = {
    "roberta-zh": {**_BASE, "vocab_size": 21_128},
    "roberta-large-zh": {**_LARGE, "vocab_size": 21_128},
    "xlm-roberta": {**_BASE, **_XLMR},
    "granite-embedding": {**_SMALL, **_XLMR, "num_hidden_layers": 6},
    "e5-small": {**_SMALL, "vocab_size": 250_037},
    "bge-m3": {**_LARGE, **_XLMR, "max_position_embeddings": 8194},
}

_LANGUAGES = ("en", "zh", "de", "es", "ja", "ko", "fr")


def write_speech(card: Card, folder: Path, size: str, seed: int) -> None:
    """HuBERT, WavLM or wav2vec 2.0, base or large as the card's source says; ``config.json``, weights, extractor.

    Large ones differ in form too: layer norm after every convolution and before each block.
    """
    import transformers

    source = card.source.lower()
    kind = "WavLM" if "wavlm" in source else "Wav2Vec2" if "wav2vec2" in source else "Hubert"
    large = "large" in source
    sizes = _TINY | {"conv_dim": (16,) * 7, "num_conv_pos_embedding_groups": 4} if size == "tiny" else {}
    form = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": kind != "WavLM"} if large else {}
    config = getattr(transformers, f"{kind}Config")(**(_LARGE if large else _BASE) | form | sizes, ecmf_stand_in=True)
    _write_model(f"{kind}Model", config, folder, seed)
    normalised = large or kind != "WavLM"
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalised, return_attention_mask=large).save_pretrained(folder)


def write_text(card: Card, folder: Path, size: str, seed: int) -> None:
    """BERT, XLM-RoBERTa or Qwen3, as the card's source says, with a tokenizer of the same kind.

    The tokenizers know single characters (WordPiece), a few pieces (Unigram) or bytes (BPE): all of Chinese and English
    without a vocabulary that would have to be learned.

    Raises
    ------
    ValueError
        For a real size that is not in the table.
    """
    source = card.source.lower()
    if size != "tiny" and card.name not in _TEXT_SIZES:
        raise ValueError(f"no stand-in of real size for '{card.name}'; there are {', '.join(_TEXT_SIZES)}")
    if "qwen" in source:
        kind, tokenizer = "Qwen3", _bytes_tokenizer()
    else:
        # e5 is a BERT that reads with the tokenizer of XLM-RoBERTa
        kind = "Bert" if "roberta-wwm" in source or "e5" in source else "XLMRoberta"
        tokenizer = _characters_tokenizer() if "roberta-wwm" in source else _pieces_tokenizer()
    own = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    if kind == "Qwen3":
        own |= {"num_key_value_heads": 2, "head_dim": 8}
    sizes = own | _TINY | {"max_position_embeddings": 130} if size == "tiny" else own | _TEXT_SIZES[card.name]
    import transformers

    _write_model(f"{kind}Model", getattr(transformers, f"{kind}Config")(**sizes, ecmf_stand_in=True), folder, seed)
    tokenizer.save_pretrained(folder)


def write_whisper(card: Card, folder: Path, size: str, seed: int) -> None:
    """Whisper with encoder, decoder, tokenizer, feature extractor and generation settings.

    What it writes down is a few random letters.
    """
    import transformers

    width, layers, heads = next(
        (found for name, found in _WHISPER_SIZES.items() if name in card.source), _WHISPER_SIZES["base"]
    )
    if size == "tiny":
        width, layers, heads = 32, 5, 4
    mels = 128 if "large-v3" in card.source else 80
    tokenizer = _whisper_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for token in _WHISPER_TOKENS}
    start, end = ids["startoftranscript"], ids["endoftext"]
    config = transformers.WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=2 if size == "tiny" else 4 if "turbo" in card.source else layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=mels,
        vocab_size=len(tokenizer),
        max_target_positions=24 if size == "tiny" else 448,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        begin_suppress_tokens=None,
        init_std=0.3 if size == "tiny" else 0.02,  # so large that what is heard makes a difference
        ecmf_stand_in=True,
    )
    letters = {tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    _write_model("WhisperForConditionalGeneration", config, folder, seed, words=letters)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)
    transformers.GenerationConfig(
        max_length=config.max_target_positions,
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=[number for number in range(min(ids.values())) if number not in letters],
        is_multilingual=True,
        lang_to_id={f"<|{language}|>": ids[language] for language in _LANGUAGES},
        task_to_id={task: ids[task] for task in ("translate", "transcribe")},
        no_timestamps_token_id=ids["notimestamps"],
        prev_sot_token_id=ids["startofprev"],
        max_initial_timestamp_index=50,
        return_timestamps=False,
    ).save_pretrained(folder)


# Width, layers and heads of the published models; large-v3-turbo has the encoder of large-v3.
_WHISPER_SIZES = {"base": (512, 6, 8), "small": (768, 12, 12), "large-v3": (1280, 32, 20)}

_WHISPER_TOKENS = (
    *("endoftext", "startoftranscript", *_LANGUAGES, "translate", "transcribe"),
    *("startoflm", "startofprev", "nospeech", "notimestamps"),
)


def _write_model(kind: str, config, folder: Path, seed: int, words: set[int] | None = None) -> None:
    """Save a model with random weights; of the tokens that it can generate, `words` are the likely ones."""
    import torch
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(config)
    if words:
        others = [number for number in range(config.vocab_size) if number not in words]
        model.get_output_embeddings().weight.data[others] *= 0.05
    model.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ tokenizers


def _characters_tokenizer():
    """As of Chinese BERT: each Chinese character is a token, other words fall into letters."""
    from transformers import BertTokenizer

    chinese = [chr(code) for code in range(0x4E00, 0x9FA6)]
    others = [chr(code) for code in range(0x21, 0x7F)] + list("，。！？；：、“”‘’（）《》…—")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *others, *(f"##{letter}" for letter in others), *chinese]
    return BertTokenizer({token: number for number, token in enumerate(tokens)})


def _pieces_tokenizer():
    """As of XLM-RoBERTa, with single characters for pieces."""
    from transformers import XLMRobertaTokenizer

    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0x4E00, 0x9FA6))] + list("，。！？")
    pieces = [(piece, -4.0) for piece in ("▁", *letters)] + [(f"▁{letter}", -4.5) for letter in letters[:94]]
    own = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer([*own, *pieces, ("<mask>", 0.0)])


def _byte_tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _bytes_tokenizer():
    """As of Qwen3: byte-level BPE, here without merges, and an end token after the text."""
    from tokenizers import AddedToken, processors
    from transformers import Qwen2Tokenizer

    tokens = [*_byte_tokens(), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer({token: number for number, token in enumerate(tokens)}, [])
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])  # so it is in Qwen3's own
    end = ("<|endoftext|>", tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end[0]], pair=["$A", "$B", end[0]], special_tokens=[end]
    )
    return tokenizer


def _whisper_tokenizer():
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    tokens = [*_byte_tokens(), "<|endoftext|>"]
    tokenizer = WhisperTokenizer({token: number for number, token in enumerate(tokens)}, [])
    tokenizer.add_tokens([AddedToken(f"<|{token}|>", special=True) for token in _WHISPER_TOKENS[1:]])
    tokenizer.add_tokens([AddedToken(f"<|{time / 50:.2f}|>", special=False) for time in range(1501)])
    return tokenizer


#: Family → writer of its stand-ins: ``writer(card, folder, size, seed)`` fills the folder of the checkpoint.
WRITERS = {"hf-speech": write_speech, "hf-text": write_text, "whisper": write_whisper, "asr-whisper": write_whisper}
