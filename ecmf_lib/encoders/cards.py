"""What people need to know of each pre-trained encoder before they download it.

Repositories, sizes and licences are as the hub showed them in stored copies of its pages of 2024-2026; nothing could be
downloaded where this was written. A size that was not seen there says so in its card's note. Which encoders are here is
our choice; where the official baseline of the challenge (MERTools) is known to use one, the card says that.

Left out: emotion2vec (published as a FunASR ``model.pt``: a pickle, and foreign code to run it), the networks for
AffectNet of HSEmotion/EmotiEffLib (pickled whole modules; their ONNX files have no repository on the hub), InternVideo2
(gated, and foreign code to run it).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """One pre-trained encoder.

    Attributes
    ----------
    name : str
        What profiles, notebooks and stores call it.
    stream : str
        One of :data:`ecmf_lib.config.STREAMS`.
    family : str
        Which class loads it, see :data:`ecmf_lib.encoders.FAMILIES`.
    source : str
        Repository on the Hugging Face hub (``owner/name``), a file in one (``owner/name/file.onnx``), or
        ``insightface:<pack>/<file>``. "" for weights that only come from the user's own folder.
    width : int
        Numbers in one step of the published weights.
    parameters : float
        Million parameters of the part that is used.
    download : int
        MB that have to be downloaded, as published.
    licence : str
    choice : str
        Whose choice it is: "ours", or who is known to have used it.
    uses : str
        "frames", "faces", "audio" or "text": what it is given.
    settings : dict
        Defaults that differ from the family's.
    revision : str
        Branch, pull request or commit on the hub.
    note : str
        A line for people.
    pattern : str
        Name that the file has in the user's own folder, with wildcards, beside ``<name>`` and ``<name>.onnx``.
    sha256 : str
        Of a file that comes from a place without checksums of its own.
    """

    name: str
    stream: str
    family: str
    source: str
    width: int
    parameters: float
    download: int
    licence: str
    choice: str
    uses: str
    settings: dict = field(default_factory=dict)
    revision: str = "main"
    note: str = ""
    pattern: str = ""
    sha256: str = ""

    @property
    def memory(self) -> int:
        """MB of the weights in single precision; half of it in half precision. What runs through them comes on top."""
        return max(1, round(self.parameters * 4))


_BASELINE = "official baseline"
_APACHE, _NC = "Apache-2.0", "CC BY-NC 4.0"
_WAVLM_LICENCE = "MIT by torchaudio; the hub names UniSpeech's licence"
_QUICK_GELU = "trained with QuickGELU, which timm's own configuration of it leaves out"
_OPENAI = {"activation": "quick_gelu"}
_CONVERTED = "safetensors from the hub's own conversion, on a pull request of the repository"
_BIN = "published as pytorch_model.bin only: read with weights_only"

_CLIP_B32, _CLIP_L14 = "timm/vit_base_patch32_clip_224.openai", "timm/vit_large_patch14_clip_224.openai"
_SIGLIP_B32 = "timm/vit_base_patch32_siglip_256.v2_webli"
_SIGLIP_SO = "timm/vit_so400m_patch14_siglip_224.v2_webli"
_DINO2 = "timm/vit_{}_patch14_reg4_dinov2.lvd142m"
_DINO3 = "timm/vit_{}_patch16_dinov3.lvd1689m"
_DINO3_LICENCE = "DINOv3 licence (own terms)"
_VIDEO = "MCG-NJU/videomae-{}-finetuned-kinetics"
_ROBERTA = "hfl/chinese-roberta-wwm-ext"
# the size of the full CLIP: the repository has image and text tower in one file
_L14_SIZE = _QUICK_GELU + "; size as of the OpenAI release of the same weights"
_B32_SIZE = "size worked out from its 94.6 M parameters"

# fmt: off
_ALL = (
    # Card(name, stream, family, source, width, million parameters, MB to download, licence, choice, uses, …)
    # ------------------------------------------------------------------------------------ whole frames
    Card("clip-b32", "global", "timm", _CLIP_B32, 768, 87.8, 605, _APACHE, "ours", "frames", _OPENAI,
         note=_QUICK_GELU),
    Card("clip-l14", "global", "timm", _CLIP_L14, 1024, 304, 1711, _APACHE, "ours", "frames", _OPENAI,
         note=_L14_SIZE),
    Card("siglip2-b32", "global", "timm", _SIGLIP_B32, 768, 94.6, 378, _APACHE, "ours", "frames", note=_B32_SIZE),
    Card("siglip2-so400m", "global", "timm", _SIGLIP_SO, 1152, 427.7, 1711, _APACHE, "ours", "frames"),
    Card("dinov2-small", "global", "timm", _DINO2.format("small"), 384, 22.1, 88, _APACHE, "ours", "frames"),
    Card("dinov2-large", "global", "timm", _DINO2.format("large"), 1024, 304.4, 1217, _APACHE, "ours", "frames"),
    Card("dinov3-small", "global", "timm", _DINO3.format("small"), 384, 21.6, 86, _DINO3_LICENCE, "ours", "frames"),
    Card("dinov3-large", "global", "timm", _DINO3.format("large"), 1024, 303.1, 1212, _DINO3_LICENCE, "ours", "frames",
         note="size worked out from its parameters"),
    # the fine-tuned ones: features of masked pre-training alone need fine-tuning to be of use
    Card("videomae-base", "global", "hf-video", _VIDEO.format("base"), 768, 86.2, 346, _NC, "ours", "frames"),
    Card("videomae-large", "global", "hf-video", _VIDEO.format("large"), 1024, 303.9, 1220, _NC, "ours", "frames"),
    # ------------------------------------------------------------------------------------ faces
    Card("clip-b32-face", "face", "timm", _CLIP_B32, 768, 87.8, 605, _APACHE, _BASELINE, "faces", _OPENAI,
         note=_QUICK_GELU),
    Card("clip-l14-face", "face", "timm", _CLIP_L14, 1024, 304, 1711, _APACHE, _BASELINE, "faces", _OPENAI,
         note=_L14_SIZE),
    Card("siglip2-b32-face", "face", "timm", _SIGLIP_B32, 768, 94.6, 378, _APACHE, "ours", "faces", note=_B32_SIZE),
    Card("affect-vit", "face", "hf-image", "mo-thecreator/vit-Facial-Expression-Recognition", 768, 85.8, 343,
         _APACHE, "ours", "faces",
         note="trained on FER-2013, MMI and AffectNet (whose terms are for research); its card says 84.3 % accuracy"),
    Card("fer-vit", "face", "hf-image", "trpakov/vit-face-expression", 768, 85.8, 343, _APACHE, "ours", "faces",
         note="trained on FER-2013; its card says 71.2 % accuracy"),
    Card("fer-xception", "face", "onnx-face", "", 256, 0.21, 0, "MIT", "ours", "faces",
         pattern="fer2013*XCEPTION*.onnx",
         note="oarriaga/face_classification, 64×64 grey, FER-2013, converted to ONNX; only from your own folder"),
    Card("arcface-r50", "face", "insightface", "insightface:buffalo_l/w600k_r50.onnx", 512, 43.6, 289,
         "non-commercial research only", "ours", "faces", note="who it is, not what they feel; one of a pack of five",
         sha256="4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"),
    # ------------------------------------------------------------------------------------ audio
    # the sum of the last four layers is the official baseline's way with HuBERT
    Card("hubert-base-zh", "audio", "hf-speech", "TencentGameMate/chinese-hubert-base", 768, 94.4, 378, "MIT",
         _BASELINE, "audio", {"layers": "last4"}, revision="9c04217413493a0d4aa884feafd3175f9867ef6b", note=_CONVERTED),
    Card("hubert-large-zh", "audio", "hf-speech", "TencentGameMate/chinese-hubert-large", 1024, 315.4, 1262, "MIT",
         _BASELINE, "audio", {"layers": "last4"}, revision="refs/pr/1", note=_CONVERTED),
    Card("mhubert-147", "audio", "hf-speech", "utter-project/mHuBERT-147", 768, 94.4, 378, "CC BY-NC-SA 4.0", "ours",
         "audio", {"layers": "last4"}, note="HuBERT base, 147 languages"),
    Card("wavlm-base-plus", "audio", "hf-speech", "microsoft/wavlm-base-plus", 768, 94.4, 378,
         _WAVLM_LICENCE, "ours", "audio", revision="refs/pr/1", note=_CONVERTED),
    Card("wavlm-large", "audio", "hf-speech", "microsoft/wavlm-large", 1024, 315.5, 1262,
         _WAVLM_LICENCE, "ours", "audio",
         revision="e4e472c491084b2c6fb9736099130aa805159c62", note=_CONVERTED),
    Card("wav2vec2-base", "audio", "hf-speech", "facebook/wav2vec2-base", 768, 94.4, 380, _APACHE, _BASELINE, "audio",
         revision="refs/pr/2", note=_CONVERTED),
    Card("wav2vec2-xlsr", "audio", "hf-speech", "facebook/wav2vec2-large-xlsr-53", 1024, 315.4, 1270, _APACHE, "ours",
         "audio", note=_BIN),
    Card("whisper-base-encoder", "audio", "whisper", "openai/whisper-base", 512, 20.6, 291, _APACHE, "ours", "audio"),
    Card("whisper-small-encoder", "audio", "whisper", "openai/whisper-small", 768, 88.2, 967, _APACHE, "ours", "audio"),
    Card("whisper-large-encoder", "audio", "whisper", "openai/whisper-large-v3", 1280, 637, 3087, _APACHE, "ours",
         "audio"),
    # ------------------------------------------------------------------------------------ text
    # again the sum of the last four, as the official baseline does it
    Card("roberta-zh", "text", "hf-text", _ROBERTA, 768, 102.3, 412, _APACHE, _BASELINE, "text", {"layers": "last4"},
         note=_BIN),
    Card("roberta-large-zh", "text", "hf-text", _ROBERTA + "-large", 1024, 325.5, 1306, _APACHE, _BASELINE, "text",
         {"layers": "last4"}, note=_BIN),
    Card("xlm-roberta", "text", "hf-text", "FacebookAI/xlm-roberta-base", 768, 278, 1130, "MIT", "ours", "text"),
    Card("granite-embedding", "text", "hf-text", "ibm-granite/granite-embedding-107m-multilingual", 384, 107, 229,
         _APACHE, "ours", "text", {"pooling": "first"}, note="12 languages, Chinese and English among them"),
    Card("e5-small", "text", "hf-text", "intfloat/multilingual-e5-small", 384, 117.7, 493, "MIT", "ours", "text",
         {"prefix": "query: "}, note="about 100 languages"),
    Card("bge-m3", "text", "hf-text", "BAAI/bge-m3", 1024, 567.8, 2293, "MIT", "ours", "text", {"pooling": "first"},
         revision="refs/pr/38", note=_CONVERTED),
    Card("qwen3-embedding", "text", "hf-text", "Qwen/Qwen3-Embedding-0.6B", 1024, 595.8, 1208, _APACHE, "ours", "text",
         {"pooling": "last"}),
    Card("qwen3-4b", "text", "hf-text", "Qwen/Qwen3-4B", 2560, 4022, 8061, _APACHE, "ours", "text",
         note="hidden states of a decoder; size from memory of its three shards, not seen"),
)

_SPEECH_TO_TEXT = (
    Card("whisper-small", "text", "asr-whisper", "openai/whisper-small", 0, 241.7, 971, _APACHE, "ours", "audio"),
    Card("whisper-large-v3-turbo", "text", "asr-whisper", "openai/whisper-large-v3-turbo", 0, 808.9, 1625, "MIT",
         "ours", "audio"),
)
# fmt: on

#: Name → card of every pre-trained encoder.
CARDS: dict[str, Card] = {card.name: card for card in _ALL}

#: Name → card of the models that write down what is said, for clips without a transcript. They make no features.
ASR_CARDS: dict[str, Card] = {card.name: card for card in _SPEECH_TO_TEXT}
