"""Face encoders that come as one ONNX file, run by onnxruntime: any classifier of expressions, and insightface's.

Nothing has to be declared for a classifier: size, channels and layout of its input are read from its graph, and so is
where its features are. What no graph tells is how grey levels are scaled and how much of the face it learned from.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from ecmf_lib.encoders.base import ClipInputs, EncoderError
from ecmf_lib.encoders.checkpoint import first_line, unfit
from ecmf_lib.encoders.images import pictures
from ecmf_lib.encoders.model import ModelEncoder, Prepared, choose_device

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    import torch

#: What classifiers trained on FER-2013 tell apart, in the order of their outputs.
FER_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

_IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)

#: Ways from grey levels 0 to 255, float32 [..., channels], to what a model expects.
SCALES = {
    "unit-signed": lambda x: (x / 255 - 0.5) * 2,
    "unit": lambda x: x / 255,
    "raw": lambda x: x,
    "imagenet": lambda x: (x / 255 - _IMAGENET[0]) / _IMAGENET[1],
}

#: Part of an aligned crop that a model gets to see: its side, and how far its centre lies below the crop's, as shares
#: of the crop's side. An aligned crop reaches from hair to chin; a box around a face, which is what FER-2013 consists
#: of, from brow to neck. "box" was chosen by measurement on real crops (docs/findings.md).
FRAMINGS = {"aligned": (1.0, 0.0), "box": (0.95, 0.15)}


def reframe(crops: np.ndarray, framing: str) -> np.ndarray:
    """Part of each crop, uint8 [n, size, size, 3] → [n, k, k, 3]; beyond the crop, its last row is repeated.

    Parameters
    ----------
    crops : uint8 [n, size, size, 3]
        Aligned, as :func:`ecmf_lib.faces.track_faces` gives them.
    framing : str
        One of :data:`FRAMINGS`.
    """
    side, down = FRAMINGS[framing]
    size = crops.shape[1]
    kept = round(side * size)
    left, top = (size - kept) // 2, round((1 - side) / 2 * size + down * size)
    rows = np.minimum(np.arange(top, top + kept), size - 1)
    return crops[:, rows, left : left + kept]


class _Onnx(ModelEncoder):
    """What models in one ONNX file share: no layers to choose from, and single precision everywhere."""

    common: ClassVar = {"pooling": "mean"}

    def _dtype(self, device: str) -> torch.dtype:
        import torch

        return torch.float32

    def _graph(self) -> onnx.ModelProto:
        import onnx
        from onnx.external_data_helper import uses_external_data

        try:
            model = onnx.load(self.folder, load_external_data=False)
        except Exception as error:  # of the protocol buffer, which shares no base class with others
            raise unfit(self.name, self.folder, f"no readable ONNX model ({first_line(error)})") from None
        if any(uses_external_data(tensor) for tensor in model.graph.initializer):  # which no checksum would cover
            raise unfit(self.name, self.folder, "keeps its weights in a file of their own; expected all in one file")
        return model


# ------------------------------------------------------------------------------------------------ classifiers


@dataclass(frozen=True)
class _Input:
    """What a classifier wants: one picture at a time or many, channels before rows and columns (NCHW) or after."""

    name: str
    channels: int
    height: int
    width: int
    channels_first: bool
    single: bool


class OnnxFaces(_Onnx):
    """Any classifier of faces in ONNX: pictures in, a row of logits or probabilities for each out.

    Its settings: ``output`` "features" is what the last dense layer, or the last convolution before the mean over the
    picture, gets, itself averaged over the picture where it is a map; or "logits", or "probabilities". ``scale`` is one
    of :data:`SCALES` and ``framing`` of :data:`FRAMINGS`; whole frames (``card.uses``) are taken as they are.
    """

    libraries = ("onnxruntime", "cv2")
    common: ClassVar = _Onnx.common | {"output": "features", "scale": "unit-signed", "framing": "box"}
    choices: ClassVar = ModelEncoder.choices | {
        "output": ("features", "logits", "probabilities"),
        "scale": tuple(SCALES),
        "framing": tuple(FRAMINGS),
    }

    _input_: _Input | None = None
    _width: int = 0

    @property
    def width(self) -> int:
        if not self._width:
            self.ready(self._device or "cpu")
            self._width = self._outputs([np.zeros(self._shape, np.uint8)], self.settings["output"]).shape[1]
        return self._width

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """What the classifier says to each crop, whatever the encoder's output is.

        Parameters
        ----------
        crops : uint8 [n, size, size, 3]
            RGB, aligned.

        Returns
        -------
        float32 [n, classes]
            Of FER-2013's models in the order of :data:`FER_CLASSES`.

        Raises
        ------
        WeightsError
            As :meth:`ready`.
        """
        self.ready(self._device or choose_device("auto"))
        items = list(self._fitted(crops))
        parts = [
            self._outputs(items[start : start + self.batch_cost], "probabilities")
            for start in range(0, len(items), self.batch_cost)
        ]
        return np.concatenate(parts)

    # -------------------------------------------------------------------------------------------- pictures

    @property
    def _wanted(self) -> _Input:
        if self._input_ is None:
            try:
                self._input_ = _input(self._graph())
            except ValueError as problem:
                raise unfit(self.name, self.folder, str(problem)) from None
        return self._input_

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._wanted.height, self._wanted.width, self._wanted.channels

    def _prepare(self, clip: ClipInputs) -> Prepared:
        return Prepared(tuple(self._fitted(pictures(clip, self.card.uses))))

    def _fitted(self, images: np.ndarray) -> np.ndarray:
        """Pictures as the model wants them, uint8 [n, height, width, channels]."""
        if self.card.uses == "faces":
            images = reframe(images, self.settings["framing"])
        height, width, channels = self._shape
        how = cv2.INTER_AREA if images.shape[1] >= height else cv2.INTER_LINEAR
        if channels == 1:
            images = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        fitted = [cv2.resize(image, (width, height), interpolation=how) for image in images]
        return np.reshape(fitted, (-1, height, width, channels))

    # -------------------------------------------------------------------------------------------- the model

    def _load(self, device: str, dtype: torch.dtype) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
        import onnx

        model, at = self._graph(), self._wanted.name
        tensors = _tensors(model.graph)
        if self.settings["output"] == "features" and "features" not in tensors:
            raise EncoderError(
                f"encoder '{self.name}': {self.folder}: no dense layer or convolution before the logits, so no "
                "features; use output = 'logits'"
            )
        there = {output.name for output in model.graph.output} | {at}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in {*tensors.values()} - there)
        try:
            return _session(model.SerializeToString(), device), tensors
        except Exception as error:  # onnxruntime's own, which share no base class
            raise unfit(self.name, self.folder, f"onnxruntime cannot run it ({first_line(error)})") from None

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        return list(self._outputs(items, self.settings["output"])[:, None])

    def _outputs(self, items: list[np.ndarray], what: str) -> np.ndarray:
        """float32 [batch, width]; maps [batch, width, height, width] averaged."""
        session, tensors = self._model
        x = SCALES[self.settings["scale"]](np.stack(items).astype(np.float32))
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1) if self._wanted.channels_first else x, np.float32)
        name = tensors.get(what, tensors["logits"])
        batches = np.split(x, len(x)) if self._wanted.single else [x]
        y = np.concatenate([session.run([name], {self._wanted.name: batch})[0] for batch in batches])
        y = y.reshape(*y.shape[:2], -1).mean(2) if y.ndim > 2 else y
        return _softmax(y) if what not in tensors else y


def _input(model: onnx.ModelProto) -> _Input:
    """What the first input of a graph wants; ValueError if that are no pictures of one size."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}  # old files name them among the inputs
    value = next((value for value in model.graph.input if value.name not in weights), None)
    kind = None if value is None else value.type.tensor_type
    if kind is None or kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        raise ValueError("its input are no pictures, float32 [n, c, h, w] or [n, h, w, c]")
    batch, *sizes = (size.dim_value for size in kind.shape.dim)  # 0 = any
    first = sizes[0] in (1, 3)
    channels, height, width = sizes if first else (sizes[2], sizes[0], sizes[1])
    if channels not in (1, 3) or not height or not width or batch > 1:
        raise ValueError(f"its input is {[batch, *sizes]} (0 = any), expected grey or RGB pictures of one size")
    return _Input(value.name, channels, height, width, first, batch == 1)


# What may stand between the last layer with weights and the logits.
_PASSING = ("Add", "Cast", "Dropout", "Flatten", "GlobalAveragePool", "Identity", "ReduceMean", "Reshape", "Squeeze")


def _tensors(graph: onnx.GraphProto) -> dict[str, str]:
    """ "features", "logits" and "probabilities" → name of the tensor, where the graph has one."""
    made_by = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.initializer} | {
        name for node in graph.node if node.op_type == "Constant" for name in node.output
    }

    def source(node: onnx.NodeProto) -> str:
        return next(name for name in node.input if name not in weights)

    found, name = {}, graph.output[0].name
    if name in made_by and made_by[name].op_type == "Softmax":
        found["probabilities"], name = name, source(made_by[name])
    found["logits"] = name
    while name in made_by and made_by[name].op_type in _PASSING:
        name = source(made_by[name])
    if name in made_by and made_by[name].op_type in ("Conv", "Gemm", "MatMul"):
        found["features"] = source(made_by[name])
    return found


def _session(model: bytes, device: str) -> onnxruntime.InferenceSession:
    import onnxruntime

    return onnxruntime.InferenceSession(model, **_options(device))


def _options(device: str) -> dict:
    """Providers and threads: those of torch, whose settings so count for both."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are for the decoders meanwhile
    options.log_severity_level = 3  # errors
    kinds = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        kinds.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
    return {"sess_options": options, "providers": kinds}


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# ------------------------------------------------------------------------------------------------ recognition


class FaceRecognition(_Onnx):
    """insightface's embedding of who somebody is (ArcFace, Deng et al., CVPR 2019), as its own class computes it.

    Not brought to length one: its length says how clear the face is.
    """

    libraries = ("insightface", "onnxruntime", "cv2")

    _width: int = 0

    @property
    def width(self) -> int:
        if not self._width:
            sizes = self._graph().graph.output[0].type.tensor_type.shape.dim
            self._width = (sizes[-1].dim_value if sizes else 0) or self.card.width
        return self._width

    def _prepare(self, clip: ClipInputs) -> Prepared:
        return Prepared(tuple(pictures(clip, self.card.uses)))

    def _load(self, device: str, dtype: torch.dtype):
        self._graph()  # as far as it can be checked without running it
        with contextlib.redirect_stdout(io.StringIO()):
            from insightface.model_zoo import get_model

            try:
                net = get_model(str(self.folder), **_options(device))
            except Exception as error:  # onnxruntime's own, which share no base class
                raise unfit(self.name, self.folder, f"insightface cannot load it ({first_line(error)})") from None
        if getattr(net, "taskname", None) != "recognition":
            raise unfit(self.name, self.folder, "no model of insightface for recognition, as w600k_r50.onnx is one")
        return net

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        in_bgr = [np.ascontiguousarray(item[..., ::-1]) for item in items]  # as OpenCV reads, and insightface expects
        return list(np.asarray(self._model.get_feat(in_bgr), np.float32)[:, None])
