"""Stand-ins for models of pictures: random weights in the real format, with the real processor files.

Their features mean nothing. "tiny" is the architecture of the published model with five small layers, for tests and
dry runs; "real" has its sizes, for measuring speed. ``config.json`` says ``"ecmf_stand_in": true``, an ONNX file says
it in its metadata.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.onnx import FER_CLASSES

if TYPE_CHECKING:
    import torch

# five layers, so that the last four are not all there is
_TINY = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 64}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_WORDS = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 1}


def write_timm(card: Card, folder: Path, size: str, seed: int) -> None:
    """A model of timm in its local-dir form, with a classifier (CLIP: projection) as published ones have it.

    The card's source, ``timm/<architecture>.<tag>``, names the architecture. Vision transformers are made tiny; of
    convolutional networks, timm has small ones by name (``timm/test_efficientnet.r160_in1k``).
    """
    import timm
    import torch
    from timm.models import save_for_hf

    name = card.source.partition("/")[2]
    tiny = {"embed_dim": 32, "depth": 5, "num_heads": 2} if size == "tiny" and name.startswith("vit_") else {}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **tiny)
        if size == "tiny":
            _shake(model)
    save_for_hf(model, folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "ecmf_stand_in": True}, indent=2))


def write_images(card: Card, folder: Path, size: str, seed: int) -> None:
    """CLIP, SigLIP, DINOv2, DINOv3, or else a ViT classifier of expressions, as the card's source says."""
    import transformers

    source = card.source.lower()
    if size == "tiny":
        sizes = _TINY | {"image_size": 64, "patch_size": 16}
    else:
        sizes = _LARGE if card.width == 1024 else {}
    if "clip" in source:
        vision = transformers.CLIPVisionConfig(**sizes, projection_dim=24 if size == "tiny" else 512)
        text = transformers.CLIPTextConfig(**_TINY | _WORDS)  # there, as in published ones, and never loaded
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=vision.projection_dim)
        model, processor = "CLIPModel", transformers.CLIPImageProcessor
    elif "siglip" in source:
        vision = transformers.SiglipVisionConfig(**sizes)
        config = transformers.SiglipConfig(
            vision_config=vision, text_config=transformers.SiglipTextConfig(**_TINY | _WORDS)
        )
        model, processor = "SiglipModel", transformers.SiglipImageProcessor
    elif "dinov3" in source:
        config = transformers.DINOv3ViTConfig(**sizes, num_register_tokens=4)
        model, processor = "DINOv3ViTModel", transformers.DINOv3ViTImageProcessor
    elif "dinov2" in source:
        ratio = {"mlp_ratio": 2} if size == "tiny" else {}
        del sizes["intermediate_size"]
        config = transformers.Dinov2Config(**sizes, **ratio)
        model, processor = "Dinov2Model", transformers.BitImageProcessor
    else:
        config = transformers.ViTConfig(**sizes, id2label=dict(enumerate(FER_CLASSES)))
        model, processor = "ViTForImageClassification", transformers.ViTImageProcessor
    side = sizes.get("image_size", getattr(config, "vision_config", config).image_size)
    box = {"height": side, "width": side}
    shape = (
        {"size": {"shortest_edge": side}, "crop_size": box, "do_center_crop": True, "do_resize": True}
        if processor in (transformers.CLIPImageProcessor, transformers.BitImageProcessor)
        else {"size": box}
    )
    processor(**shape).save_pretrained(folder)
    _write_transformers(model, config, folder, size, seed)


def write_video(card: Card, folder: Path, size: str, seed: int) -> None:
    """VideoMAE fine-tuned as a classifier of actions, base or large as the card's width says."""
    import transformers

    sizes = _TINY | {"image_size": 64} if size == "tiny" else _LARGE if card.width == 1024 else {}
    config = transformers.VideoMAEConfig(**sizes, use_mean_pooling=True, num_labels=400)
    box = {"height": config.image_size, "width": config.image_size}
    transformers.VideoMAEImageProcessor(
        size={"shortest_edge": config.image_size}, crop_size=box, image_mean=[0.485, 0.456, 0.406]
    ).save_pretrained(folder)
    _write_transformers("VideoMAEForVideoClassification", config, folder, size, seed)


def _write_transformers(kind: str, config, folder: Path, size: str, seed: int) -> None:
    import torch
    import transformers

    config.ecmf_stand_in = True
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(config)
        if size == "tiny":
            _shake(model)
    model.save_pretrained(folder)


def _shake(model: torch.nn.Module) -> None:
    """Usual first weights let pictures pass nearly unchanged; tests need layers that differ and that matter."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


# ------------------------------------------------------------------------------------------------ ONNX


def write_classifier(card: Card, folder: Path, size: str, seed: int) -> None:
    """A classifier of expressions like the FER-2013 XCEPTION: grey 64×64, convolutions, one map a class, softmax.

    It is tiny in both sizes: the true one has 0.2 million parameters.
    """
    rng = np.random.default_rng(seed)
    nodes, tensors, maps = [], {}, [1, 8, card.width or 16]
    for layer, (inner, outer) in enumerate(pairwise(maps)):
        tensors[f"w{layer}"] = rng.normal(0, 1 / np.sqrt(9 * inner), (outer, inner, 3, 3))
        nodes += [("Conv", ["x" if layer == 0 else "r0", f"w{layer}"], f"c{layer}", {"strides": [4, 4]})]
        nodes += [("Relu", [f"c{layer}"], f"r{layer}", {})]
    tensors["wc"] = rng.normal(0, 1, (len(FER_CLASSES), maps[-1], 3, 3))
    nodes += [("Conv", ["r1", "wc"], "maps", {"pads": [1] * 4}), ("GlobalAveragePool", ["maps"], "mean", {})]
    nodes += [("Flatten", ["mean"], "logits", {}), ("Softmax", ["logits"], "predictions", {"axis": -1})]
    _write_onnx(folder, nodes, tensors, ["batch", 1, 64, 64], ["batch", len(FER_CLASSES)])


def write_recognition(card: Card, folder: Path, size: str, seed: int) -> None:
    """A face embedding like ArcFace: RGB 112×112, one vector. Tiny in both sizes."""
    rng = np.random.default_rng(seed)
    tensors = {"w0": rng.normal(0, 0.1, (8, 3, 8, 8)), "w1": rng.normal(0, 0.1, (8 * 49, card.width))}
    nodes = [("Conv", ["x", "w0"], "c0", {"strides": [8, 8]}), ("Relu", ["c0"], "r0", {})]
    nodes += [("MaxPool", ["r0"], "p0", {"kernel_shape": [2, 2], "strides": [2, 2]})]
    nodes += [("Flatten", ["p0"], "f0", {}), ("MatMul", ["f0", "w1"], "embedding", {})]
    _write_onnx(folder, nodes, tensors, ["batch", 3, 112, 112], ["batch", card.width])


def _write_onnx(folder: Path, nodes: list, tensors: dict, shape_in: list, shape_out: list) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes],
        "stand-in",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"ecmf_stand_in": "true"})
    onnx.save(model, folder / "model.onnx")


#: Family → writer of its stand-ins: ``writer(card, folder, size, seed)`` fills the folder of the checkpoint.
WRITERS = {
    "timm": write_timm,
    "hf-image": write_images,
    "hf-video": write_video,
    "onnx-face": write_classifier,
    "insightface": write_recognition,
}
