"""Pre-trained models of pictures: one vector for each frame or face crop, or for two frames of a video model.

Workers bring pictures to the model's size with its own transform and send them on as bytes, a quarter of the size of
numbers; scaling and normalising come after, on the device, in the same order as the model's own transform does it.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.checkpoint import load_model, load_part, unfit
from ecmf_lib.encoders.model import ModelEncoder, Prepared

if TYPE_CHECKING:
    import torch


def pictures(clip: ClipInputs, uses: str) -> np.ndarray:
    """What a vision encoder gets to see of a clip.

    Parameters
    ----------
    clip : ClipInputs
    uses : "frames" or "faces"

    Returns
    -------
    uint8 [n, height, width, 3]
        All frames; or the crops of the frames in which the face was found, because a carried crop says nothing new.

    Raises
    ------
    MissingStream
        Without video, or without any face.
    """
    if not len(clip.frames if uses == "frames" else clip.crops):
        raise MissingStream("no video")
    if uses == "frames":
        return clip.frames
    if not clip.found.any():
        raise MissingStream("no face found")
    return clip.crops[clip.found]


@dataclass(frozen=True)
class _Look:
    """How a model wants its pictures: `fit` [n, H, W, 3] → [n, h, w, 3] on bytes; then (x / white - mean) / std."""

    fit: Callable[[np.ndarray], np.ndarray]
    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Images(ModelEncoder):
    """What all models of pictures share.

    Settings: ``layers`` "own" is the image embedding of the model itself, "last" its last hidden state, "last4" the
    sum of the outputs of its last four blocks, before any final norm. The last two have one vector for each patch: a
    picture is described by its class token, or by the mean of the patches where the model has none.
    """

    common: ClassVar = ModelEncoder.common | {"layers": "own"}
    choices: ClassVar = ModelEncoder.choices | {"layers": ("own", "last", "last4")}

    _look_: _Look | None = None

    @property
    def _look(self) -> _Look:
        if self._look_ is None:
            self._look_ = self._make_look()
        return self._look_

    @abstractmethod
    def _make_look(self) -> _Look: ...

    def _prepare(self, clip: ClipInputs) -> Prepared:
        return Prepared(tuple(self._look.fit(pictures(clip, self.card.uses))))

    def _batch(self, items: list[np.ndarray]) -> torch.Tensor:
        """Items uint8 [..., h, w, 3] as the model wants them: [batch, ..., 3, h, w], normalised, on its device."""
        import torch

        look, device = self._look, self._device
        x = torch.from_numpy(np.stack(items)).to(device).float().div_(look.white)
        x = x.sub_(torch.tensor(look.mean, device=device)).div_(torch.tensor(look.std, device=device))
        x = x.movedim(-1, -3).to(self._dtype(device))
        return x if device.startswith("cuda") else x.contiguous()  # channels last is what a GPU likes

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_look_": None}  # transforms are made where they are used


# ------------------------------------------------------------------------------------------------ timm


class TimmImages(_Images):
    """Any model of timm, from a folder in timm's own format: a snapshot of a ``timm/…`` repository, or ``save_for_hf``.

    "own" is what the model gives with ``num_classes=0``: what its classifier, or CLIP's projection, would get. A
    convolutional network has no tokens and so only that. The setting ``activation`` = "quick_gelu" puts right what
    timm's configuration of OpenAI's CLIP leaves out: its weights were trained with QuickGELU.
    """

    libraries = ("torch", "torchvision", "timm", "PIL")
    common: ClassVar = _Images.common | {"activation": "own"}
    choices: ClassVar = _Images.choices | {"activation": ("own", "quick_gelu")}

    _width: int = 0

    @property
    def width(self) -> int:
        if not self._width:
            model = self._form()
            self._width = getattr(model, "head_hidden_size", None) or model.num_features
        return self._width

    def _make_look(self) -> _Look:
        from PIL import Image
        from timm.data import create_transform, resolve_model_data_config

        form = self._form()
        try:
            config = resolve_model_data_config(form)
            transform = create_transform(**config, is_training=False, normalize=False)
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise unfit(self.name, self.folder / "config.json", f"no usable transform ({error})") from None

        def fit(images: np.ndarray) -> np.ndarray:
            fitted = [transform(Image.fromarray(image)).permute(1, 2, 0).numpy() for image in images]
            return np.ascontiguousarray(fitted)

        return _Look(fit, 255.0, tuple(config["mean"]), tuple(config["std"]))

    def _load(self, device: str, dtype: torch.dtype) -> torch.nn.Module:
        import torch

        with _what_is_missing() as missing:
            model = self._create(pretrained=True)
        if missing:
            raise unfit(self.name, self.folder, f"not a whole checkpoint of this architecture: {missing[0]}")
        model = model.eval().requires_grad_(False).to(device, dtype)
        return model.to(memory_format=torch.channels_last) if device.startswith("cuda") else model

    def _form(self) -> torch.nn.Module:
        """The model without its weights: a tenth of a second."""
        import torch

        with torch.device("meta"):
            return self._create(pretrained=False)

    def _create(self, pretrained: bool) -> torch.nn.Module:
        import timm

        form = {} if self.settings["activation"] == "own" else {"act_layer": self.settings["activation"]}
        try:
            model = timm.create_model(f"local-dir:{self.folder}", pretrained=pretrained, num_classes=0, **form)
        except Exception as error:  # timm raises whatever came up
            what = str(error).strip().splitlines() or [""]
            raise unfit(self.name, self.folder, f"timm cannot load it ({type(error).__name__}: {what[0]})") from None
        if self.settings["layers"] != "own" and not hasattr(model, "num_prefix_tokens"):
            raise EncoderError(
                f"encoder '{self.name}': {type(model).__name__} has no tokens, so no layers = "
                f"{self.settings['layers']!r}; use layers = 'own'"
            )
        return model

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        model, x = self._model, self._batch(items)
        if self.settings["layers"] == "own":
            vectors = model(x)
        elif self.settings["layers"] == "last":
            vectors = self._of_picture(model.forward_features(x))
        else:
            blocks = model.forward_intermediates(
                x, indices=4, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
            )
            # patches, and apart from them class token and registers where there are any
            whole = (torch.cat(block[::-1], 1) if isinstance(block, tuple) else block for block in blocks)
            vectors = sum(self._of_picture(tokens).float() for tokens in whole)
        return list(vectors.float().cpu().numpy()[:, None])

    def _of_picture(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [batch, n, width], class token and registers first, as [batch, width]."""
        if getattr(self._model, "cls_token", None) is not None:
            return tokens[:, 0]
        return tokens[:, self._model.num_prefix_tokens :].mean(1)


@contextmanager
def _what_is_missing() -> Iterator[list[str]]:
    """What timm says about tensors that a checkpoint lacks.

    With another number of classes, which here is always so, it fills them with random numbers and only logs it.
    """
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Missing keys"):
                said.append(record.getMessage().partition(" discovered")[0])

    log = logging.getLogger("timm.models._builder")
    level, listening = log.level, Listening()
    log.addHandler(listening)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(listening)
        log.setLevel(level)


# ------------------------------------------------------------------------------------------------ transformers

# Kind of model (or vision part) in config.json → class of its vision tower, and what its output calls the embedding of
# a picture ("" = the class token of the last hidden state).
_TOWERS = {
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
    "vit": ("ViTModel", ""),
    "deit": ("DeiTModel", ""),
    "dinov2": ("Dinov2Model", ""),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", ""),
    "dinov3_vit": ("DINOv3ViTModel", ""),
}


class _Transformers(_Images):
    """Models of transformers' format; the pictures go through their own image processor."""

    libraries = ("torch", "torchvision", "transformers")  # torchvision resizes, where it is installed

    _config_ = None

    @property
    def _config(self):
        """Configuration of the vision part, with the defaults that its file leaves out."""
        if self._config_ is None:
            config = load_part("AutoConfig", self.folder, self.name)
            self._config_ = getattr(config, "vision_config", config)
        return self._config_

    @property
    def width(self) -> int:
        return self._config.hidden_size

    def _make_look(self) -> _Look:
        processor = load_part("AutoImageProcessor", self.folder, self.name)
        if not getattr(processor, "do_center_crop", False) and "height" not in dict(processor.size or {}):
            raise unfit(self.name, self.folder, "its image processor gives pictures of any shape; set a crop or a size")

        def fit(images: np.ndarray) -> np.ndarray:
            # batched by itself where pictures have one size; bytes in, bytes out
            made = processor(list(images), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
            made = np.asarray(made).reshape(-1, *made.shape[-3:])  # a video processor adds an axis
            return np.ascontiguousarray(np.moveaxis(made, 1, -1), dtype=np.uint8)

        white = 1 / processor.rescale_factor if processor.do_rescale else 1.0
        normal = processor.do_normalize
        mean, std = (processor.image_mean, processor.image_std) if normal else ([0.0] * 3, [1.0] * 3)
        return _Look(fit, white, tuple(mean), tuple(std))


class TransformersImages(_Transformers):
    """Vision towers of transformers: CLIP, SigLIP and SigLIP 2 of fixed size, ViT, DeiT, DINOv2, DINOv3.

    "own" is CLIP's projected embedding, SigLIP's attention-pooled one, for the others the class token after the final
    norm, which is what a ViT's classifier gets (expression classifiers are used without it).
    DINOv3's processor scales before it resizes; here it resizes bytes, and rounding makes a grey level at most.
    """

    @property
    def _tower(self) -> tuple[str, str]:
        kind = self._config.model_type
        if kind not in _TOWERS:
            raise unfit(self.name, self.folder / "config.json", f"kind {kind!r}; known are {', '.join(_TOWERS)}")
        return _TOWERS[kind]

    @property
    def width(self) -> int:
        if self.settings["layers"] == "own" and self._tower[1] == "image_embeds":
            return self._config.projection_dim
        return super().width

    def _load(self, device: str, dtype: torch.dtype) -> torch.nn.Module:
        return load_model(self._tower[0], self.folder, self.name, device=device, dtype=dtype).requires_grad_(False)

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        tower, embedding = self._tower
        layers = self.settings["layers"]
        output = self._model(pixel_values=self._batch(items), output_hidden_states=layers == "last4")
        if layers == "own" and embedding:
            vectors = output[embedding]
        else:
            hidden = output.hidden_states[-4:] if layers == "last4" else (output.last_hidden_state,)
            mean = tower == "SiglipVisionModel"  # has no class token
            vectors = sum((tokens.mean(1) if mean else tokens[:, 0]).float() for tokens in hidden)
        return list(vectors.float().cpu().numpy()[:, None])


class TransformersVideo(_Transformers):
    """VideoMAE (Tong et al., NeurIPS 2022) on stacks of frames: what moves, not only how it looks.

    A clip with fewer frames than a stack takes (16) shows some of them twice; a longer one is covered by stacks that
    overlap as little as can be, each stretch of time counted once. "last" and "last4" give one step for each two
    frames (a "tubelet"), the mean over the picture; "own" gives one a stack: the mean of all tokens, after the norm of
    the classifier where the checkpoint was fine-tuned as one.
    """

    batch_cost = 32

    def cost(self, item: np.ndarray) -> int:
        return len(item)

    @property
    def _times(self) -> tuple[int, int]:
        """Frames in a stack, and frames in a step."""
        return self._config.num_frames, self._config.tubelet_size

    def _prepare(self, clip: ClipInputs) -> Prepared:
        frames = self._look.fit(pictures(clip, self.card.uses))
        length, tubelet = self._times
        if len(frames) <= length:
            return Prepared((frames[np.linspace(0, len(frames) - 1, length).round().astype(int)],))
        starts = np.linspace(0, len(frames) - length, -(-len(frames) // length)).round().astype(int)
        stacks = tuple(frames[start : start + length] for start in starts)
        if self.settings["layers"] == "own":
            return Prepared(stacks)
        seen = [0, *((starts[:-1] + length - starts[1:]) // tubelet)]  # steps that the stack before has shown
        return Prepared(stacks, tuple((int(first), length // tubelet) for first in seen))

    def _load(self, device: str, dtype: torch.dtype) -> torch.nn.Module:
        classifies = any("VideoClassification" in name for name in self._config.architectures or ())
        kind = "VideoMAEForVideoClassification" if classifies else "VideoMAEModel"
        return load_model(kind, self.folder, self.name, device=device, dtype=dtype).requires_grad_(False)

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        layers, model = self.settings["layers"], self._model
        output = getattr(model, "videomae", model)(self._batch(items), output_hidden_states=layers == "last4")
        norm = getattr(model, "fc_norm", None)
        if layers == "own":
            mean = output.last_hidden_state.mean(1, keepdim=True)
            return list((mean if norm is None else norm(mean)).float().cpu().numpy())
        hidden = output.hidden_states[-4:] if layers == "last4" else (output.last_hidden_state,)
        tokens = sum(states.float() for states in hidden)
        length, tubelet = self._times
        return list(tokens.unflatten(1, (length // tubelet, -1)).mean(2).cpu().numpy())
