"""Speech models: HuBERT, WavLM, wav2vec 2.0 and Whisper's encoder, through transformers.

All of them give a vector every 20 ms (50 Hz). Long clips go through in overlapping chunks, and nothing is cut off.

HuBERT: Hsu et al., IEEE/ACM TASLP 29, 2021. WavLM: Chen et al., IEEE JSTSP 16(6), 2022. wav2vec 2.0: Baevski et al.,
NeurIPS 2020. Whisper: Radford et al., ICML 2023.

emotion2vec (Ma et al., ACL Findings 2024) is not here: it is published for FunASR (a ``.pt`` file with a
``config.yaml``, ``configuration.json`` says ``"type": "funasr"``), transformers has no such model, and FunASR would
bring the model's code and a loader for pickles.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecmf_lib.config import SAMPLE_RATE
from ecmf_lib.encoders.audio import SILENCE
from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.checkpoint import config_value, load_model, load_part, read_json, unfit
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import WeightsError
from ecmf_lib.encoders.windows import Window, windows

if TYPE_CHECKING:
    import torch

# Whisper: samples between steps, and those under one spectrum. Its feature extractor has no other numbers.
_STEP, _SPECTRUM = 320, 400


class _SpeechEncoder(ModelEncoder):
    """What speech models share: what counts as sound, chunks, layers."""

    choices: ClassVar = {**ModelEncoder.choices, "layers": ("last", "last4")}
    libraries = ("torch", "transformers")

    def __init__(self, card, root=None, **settings):
        super().__init__(card, root, **settings)
        if not 0 <= self.settings["overlap"] <= self._longest - 1:
            raise EncoderError(
                f"encoder '{self.name}': overlap = {self.settings['overlap']} s; "
                f"expected at least 1 s less than a chunk ({self._longest} s)"
            )

    @property
    def _longest(self) -> float:
        """Longest chunk in s."""
        return self.settings["chunk"]

    @cached_property
    def _config(self) -> dict:
        return read_json(self.folder / "config.json", self.name)

    @cached_property
    def _preprocessor(self) -> dict:
        path = self.folder / "preprocessor_config.json"
        if path.is_file():
            return read_json(path, self.name)
        return read_json(self.folder / "processor_config.json", self.name).get("feature_extractor", {})

    @property
    def _rate(self) -> int:
        """Samples a second that the model was trained on."""
        return self._preprocessor.get("sampling_rate", SAMPLE_RATE)

    def _heard(self, clip: ClipInputs, least: int) -> np.ndarray:
        """The clip's sound at the model's rate; MissingStream without, or with less than `least` samples of it."""
        if not clip.audio.size:
            raise MissingStream("no audio track")
        sound = clip.audio if self._rate == SAMPLE_RATE else _resampled(clip.audio, self._rate)
        if len(sound) < least:
            raise MissingStream(f"audio shorter than {least / self._rate} s")
        if np.abs(sound).max() < SILENCE:
            raise MissingStream("audio is silent")
        return sound

    def _chunks(self, steps: int, step: float) -> list[Window]:
        """Windows over so many steps of `step` seconds."""
        return windows(steps, round(self._longest / step), round(self.settings["overlap"] / step))

    @property
    def _on_gpu(self) -> bool:
        return self._device is not None and self._device != "cpu"


class Speech(_SpeechEncoder):
    """HuBERT, WavLM and wav2vec 2.0: convolutions over the samples, then a transformer.

    In base models a norm of the first convolution runs over time, so padding would change every step of a shorter
    clip. Their convolutions therefore see each clip alone, and only what they give is padded, for the transformer,
    which masks it: a clip has the same features in any company.

    Settings: ``chunk``, longest stretch in s that the model sees at once; ``overlap`` of neighbouring chunks in s.
    Half of it, 2 s, is context on either side of a cut; the positional convolution reaches 1.28 s. Chunks differ
    from the whole only in that attention ends at their ends (and, in base models, in that norm).

    ``layers``: "last", what the model gives; "last4", the sum of it and the three hidden layers before, as the
    official baseline of the challenge does for HuBERT.
    """

    common: ClassVar = {**ModelEncoder.common, "chunk": 20, "overlap": 4}
    kinds: ClassVar = ("hubert", "wavlm", "wav2vec2")

    @property
    def width(self) -> int:
        return config_value(self._config, "hidden_size", self.folder, self.name)

    @cached_property
    def _front(self) -> tuple[int, int]:
        """Samples that one step of the convolutions hears, and samples between steps."""
        kernels, strides = self._config.get("conv_kernel"), self._config.get("conv_stride")
        if not kernels or not strides or len(kernels) != len(strides):
            raise unfit(self.name, self.folder / "config.json", "no usable 'conv_kernel' and 'conv_stride'")
        hears = 1 + sum((kernel - 1) * prod(strides[:layer]) for layer, kernel in enumerate(kernels))
        return hears, prod(strides)

    @property
    def batch_cost(self) -> int:
        """Samples in a batch: a minute of sound where memory is a laptop's, ten on a GPU."""
        return SAMPLE_RATE * (600 if self._on_gpu else 60)

    def cost(self, item: np.ndarray) -> int:
        return len(item)

    def _prepare(self, clip: ClipInputs) -> Prepared:
        hears, step = self._front
        sound = self._heard(clip, hears)
        if self._preprocessor.get("do_normalize", True):
            # what Wav2Vec2FeatureExtractor does, without the torch that comes with it; over the whole clip, not a chunk
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        steps = (len(sound) - hears) // step + 1
        chunks = self._chunks(steps, step / self._rate)
        ends = [(chunk.stop - 1) * step + hears for chunk in chunks[:-1]] + [len(sound)]
        items = [sound[chunk.start * step : end] for chunk, end in zip(chunks, ends, strict=True)]
        return Prepared(tuple(items), tuple(chunk.keep for chunk in chunks))

    def _load(self, device: str, dtype: torch.dtype):
        kind = self._config.get("model_type")
        if kind not in self.kinds or self._config.get("add_adapter"):
            what = f"a model of type '{kind}'" + (" with an adapter on top" if self._config.get("add_adapter") else "")
            expected = f"expected {', '.join(self.kinds)} without an adapter; take another checkpoint"
            raise WeightsError(f"encoder '{self.name}': {self.folder / 'config.json'}: {what}; {expected}")
        return load_model("AutoModel", self.folder, self.name, device=device, dtype=dtype)

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if self._config.get("conv_pos_batch_norm") and len(items) > 1:  # it would shift what padding is
            return [steps for item in items for steps in self._forward([item])]
        model = self._model
        fronts = self._convolved(items)
        lengths = torch.tensor([len(front) for front in fronts], device=self._device)
        projected = model.feature_projection(pad_sequence(fronts, batch_first=True))
        hidden = projected[0] if isinstance(projected, tuple) else projected
        mask = torch.arange(hidden.shape[1], device=self._device) < lengths[:, None]
        before = []  # outputs of the three layers before the last
        with ExitStack() as hooks:
            if self.settings["layers"] == "last4":
                for layer in model.encoder.layers[-4:-1]:
                    hooks.enter_context(layer.register_forward_hook(lambda *call: before.append(_tensor(call[-1]))))
            last = model.encoder(hidden, attention_mask=mask).last_hidden_state.float()
        steps = sum((layer.float() for layer in before), last).cpu().numpy()
        return [of_item[:length] for of_item, length in zip(steps, lengths.tolist(), strict=True)]

    def _convolved(self, items: list[np.ndarray]) -> list[torch.Tensor]:
        """What the convolutions give for each item, [steps, channels]."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        model = self._model
        sounds = [torch.from_numpy(np.ascontiguousarray(item)).to(self._device, model.dtype) for item in items]
        if not (self._on_gpu and self._config.get("feat_extract_norm") == "layer"):
            return [model.feature_extractor(sound[None])[0].T for sound in sounds]
        # In large models no norm runs over time, so that padding changes no step before it, and a GPU is quicker with
        # all of them at once; a CPU is not, and would need their memory at once.
        hears, step = self._front
        fronts = model.feature_extractor(pad_sequence(sounds, batch_first=True)).transpose(1, 2)
        return [front[: (len(item) - hears) // step + 1] for front, item in zip(fronts, items, strict=True)]


class WhisperSpeech(_SpeechEncoder):
    """Whisper's encoder: log-mel spectrogram of 30 s, always, of which the steps of the real sound are kept.

    The spectrogram is computed where the model runs, by the checkpoint's own feature extractor: in the workers it would
    need torch in each of them, and three times the bytes to send for a short clip.

    Setting: ``overlap`` of neighbouring windows in s, for clips longer than 30 s.
    """

    common: ClassVar = {**ModelEncoder.common, "overlap": 4}

    @property
    def width(self) -> int:
        return config_value(self._config, "d_model", self.folder, self.name)

    @property
    def _longest(self) -> float:
        return 30.0  # fixed by the model's positions

    @property
    def batch_cost(self) -> int:
        """Windows in a batch."""
        return 32 if self._on_gpu else 4

    def _prepare(self, clip: ClipInputs) -> Prepared:
        sound = self._heard(clip, _SPECTRUM)
        chunks = self._chunks(-(-len(sound) // _STEP), _STEP / self._rate)
        items = [sound[chunk.start * _STEP : chunk.stop * _STEP] for chunk in chunks]
        return Prepared(tuple(items), tuple(chunk.keep for chunk in chunks))

    def _load(self, device: str, dtype: torch.dtype):
        if self._config.get("model_type") != "whisper":
            what = f"a model of type '{self._config.get('model_type')}', expected whisper; take another checkpoint"
            raise WeightsError(f"encoder '{self.name}': {self.folder / 'config.json'}: {what}")
        self._extractor = load_part("WhisperFeatureExtractor", self.folder, self.name)
        return load_model("AutoModel", self.folder, self.name, device=device, dtype=dtype).encoder

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        where = self._device if self._device.startswith("cuda") else "cpu"
        found = self._extractor(items, sampling_rate=self._rate, return_tensors="pt", device=where)
        mel = found.input_features.to(self._device, self._model.dtype)
        if self.settings["layers"] == "last4":
            layers = self._model(mel, output_hidden_states=True).hidden_states[-4:]
        else:
            layers = [self._model(mel).last_hidden_state]
        steps = sum(layer.float() for layer in layers).cpu().numpy()
        return [of_item[: -(-len(item) // _STEP)] for of_item, item in zip(steps, items, strict=True)]

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_extractor": None}


def _resampled(sound: np.ndarray, rate: int) -> np.ndarray:
    """From the rate of decoding to another one, by torchaudio's windowed sinc."""
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.from_numpy(sound), SAMPLE_RATE, rate).numpy()


def _tensor(output) -> torch.Tensor:
    """What a layer gives; WavLM's also hand on their position bias."""
    return output[0] if isinstance(output, tuple) else output
