"""Models of pictures from tiny checkpoints on disk: the same numbers as calling the library by hand."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from ecmf_lib.encoders import stand_ins
from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.cards import CARDS, Card
from ecmf_lib.encoders.images import TimmImages, TransformersImages, TransformersVideo
from ecmf_lib.encoders.model import POOLINGS, pool
from ecmf_lib.encoders.weights import WeightsError

LAYERS = ("own", "last", "last4")


def card(name, family, source, width=32, uses="frames"):
    return Card(name, "global" if uses == "frames" else "face", family, source, width, 1, 1, "none", "ours", uses)


TIMM = {
    "class-token": card("class-token", "timm", "timm/vit_base_patch32_clip_224.openai"),
    "attention-pool": card("attention-pool", "timm", "timm/vit_base_patch32_siglip_256.v2_webli"),
    "registers": card("registers", "timm", "timm/vit_small_patch16_dinov3.lvd1689m"),
    "cnn": card("cnn", "timm", "timm/test_efficientnet.r160_in1k", 256, "faces"),
}
HF = {
    "clip": card("clip", "hf-image", "someone/clip"),
    "siglip": card("siglip", "hf-image", "someone/siglip"),
    "vit": replace(CARDS["affect-vit"], width=32),
    "dinov2": card("dinov2", "hf-image", "someone/dinov2"),
    "dinov3": card("dinov3", "hf-image", "someone/dinov3"),
}
VIDEO = card("video", "hf-video", "someone/videomae")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for each in (*TIMM.values(), *HF.values(), VIDEO):
        stand_ins.write(each, folder)
    return folder


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))  # digests of weights are remembered there


def clip(n, seed=0, shape=(90, 120)):
    rng = np.random.default_rng(seed)
    frames, crops = (rng.integers(0, 256, (n, *size, 3), np.uint8) for size in (shape, (112, 112)))
    found = np.arange(n) % 3 != 1
    return ClipInputs(f"c{seed}", frames, np.arange(n) / 4, crops, found, np.zeros(0, np.float32), "", "")


def loaded_by_timm(folder):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    return model, create_transform(**resolve_model_data_config(model), is_training=False)


def outputs_of(layers, run):
    """What the layers give while something runs."""
    caught = []
    hooks = [layer.register_forward_hook(lambda module, given, out: caught.append(out)) for layer in layers]
    with torch.inference_mode():
        result = run()
    for hook in hooks:
        hook.remove()
    return result, [out[0] if isinstance(out, tuple) else out for out in caught]


def pooled_by_hand(steps, how):
    steps = np.asarray(steps, np.float64)
    by_hand = {"mean": steps.mean(0), "mean+std": np.r_[steps.mean(0), steps.std(0)]}
    by_hand |= {"first": steps[0], "last": steps[-1], "none": steps}
    return by_hand[how] if how in by_hand else pool(steps, how)


def check_all_poolings(make, layers, steps, inputs):
    loaded = make(layers=layers)
    loaded.ready("cpu")
    for how in POOLINGS:
        encoder = make(layers=layers, pooling=how)
        encoder._model, encoder._device = loaded._model, loaded._device  # loading six times would be all the time
        features = encoder.encode(inputs)
        assert features.shape[-1] == encoder.dim and features.dtype == np.float32
        assert encoder.level == ("frame" if how == "none" else "clip")
        np.testing.assert_allclose(features, pooled_by_hand(steps, how), atol=2e-5, err_msg=how)


# ------------------------------------------------------------------------------------------------ timm


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("shape", [(90, 120), (360, 300), (300, 640)], ids=str)
def test_pictures_are_those_of_timms_own_transform(root, name, shape):
    inputs = clip(2, shape=shape)
    encoder = TimmImages(replace(TIMM[name], uses="frames"), root)
    encoder.ready("cpu")
    items = encoder.prepare(inputs).items
    assert all(item.dtype == np.uint8 and item.flags.c_contiguous for item in items)
    _, transform = loaded_by_timm(encoder.folder)
    expected = torch.stack([transform(Image.fromarray(frame)) for frame in inputs.frames])
    assert (encoder._batch(list(items)) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", ["class-token", "attention-pool", "registers"])
def test_features_of_timm_are_those_by_hand(root, name, layers):
    inputs = clip(4)
    model, transform = loaded_by_timm(root / name)
    x = torch.stack([transform(Image.fromarray(frame)) for frame in inputs.frames])
    tokens, blocks = outputs_of(model.blocks[-4:], lambda: model.forward_features(x))
    if layers == "own":
        with torch.inference_mode():
            steps = model.forward_head(tokens, pre_logits=True)
    else:
        whole = tokens if layers == "last" else torch.stack(blocks).sum(0)
        steps = whole.mean(1) if name == "attention-pool" else whole[:, 0]
    check_all_poolings(lambda **settings: TimmImages(TIMM[name], root, **settings), layers, steps, inputs)


def test_a_convolutional_network_sees_found_faces_and_has_only_its_own_features(root):
    inputs = clip(5)
    model, transform = loaded_by_timm(root / "cnn")
    x = torch.stack([transform(Image.fromarray(crop)) for crop in inputs.crops[[0, 2, 3]]])
    with torch.inference_mode():
        steps = model(x)
    check_all_poolings(lambda **settings: TimmImages(TIMM["cnn"], root, **settings), "own", steps, inputs)
    for layers in ("last", "last4"):
        encoder = TimmImages(TIMM["cnn"], root, layers=layers)
        with pytest.raises(EncoderError, match=r"EfficientNet has no tokens.*use layers = 'own'"):
            encoder.ready("cpu")
        with pytest.raises(EncoderError, match="use layers = 'own'"):
            _ = encoder.dim


def test_quick_gelu_is_timms_own_architecture_of_that_name(root, tmp_path):
    inputs, given = clip(2), TIMM["class-token"]
    folder = stand_ins.write(given, tmp_path)
    quick = TimmImages(given, tmp_path, activation="quick_gelu").encode(inputs)
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = "vit_base_patch32_clip_quickgelu_224"
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(TimmImages(given, tmp_path).encode(inputs), quick)
    assert np.abs(TimmImages(given, root).encode(inputs) - quick).max() > 1e-3
    config["model_args"]["act_layer"] = "relu"  # and over what the folder says
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(TimmImages(given, tmp_path, activation="quick_gelu").encode(inputs), quick)


# ------------------------------------------------------------------------------------------------ transformers


def loaded_by_transformers(name, folder):
    kind = {
        "clip": transformers.CLIPVisionModelWithProjection,
        "siglip": transformers.SiglipVisionModel,
        "vit": transformers.ViTForImageClassification,
        "dinov2": transformers.Dinov2Model,
        "dinov3": transformers.DINOv3ViTModel,
    }[name]
    return kind.from_pretrained(folder).eval(), transformers.AutoImageProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", HF)
def test_pictures_are_those_of_the_models_own_processor(root, name):
    inputs = clip(2, shape=(100, 160))
    encoder = TransformersImages(replace(HF[name], uses="frames"), root)
    encoder.ready("cpu")
    got = encoder._batch(list(encoder.prepare(inputs).items))
    processor = transformers.AutoImageProcessor.from_pretrained(encoder.folder)
    expected = processor(list(inputs.frames), return_tensors="pt")["pixel_values"]
    # DINOv3's processor resizes numbers, not bytes: a grey level of rounding, over the least deviation
    assert (got - expected).abs().max() < (1 / 255 / 0.224 if name == "dinov3" else 1e-6)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", HF)
def test_features_of_transformers_are_those_by_hand(root, name, layers):
    inputs, given = clip(4, shape=(64, 64)), replace(HF[name], uses="frames")
    model, processor = loaded_by_transformers(name, root / given.name)
    x = processor(list(inputs.frames), return_tensors="pt")["pixel_values"]
    base = {"clip": "vision_model", "vit": "vit"}.get(name)
    base = getattr(model, base) if base else model
    stack = next(m for m in base.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 5)
    output, blocks = outputs_of(stack[-4:], lambda: base(x))
    if layers == "own" and name == "clip":
        with torch.inference_mode():
            steps = model.visual_projection(output.pooler_output)
    elif layers == "own" and name == "siglip":
        steps = output.pooler_output
    else:
        whole = torch.stack(blocks).sum(0) if layers == "last4" else output.last_hidden_state
        steps = whole.mean(1) if name == "siglip" else whole[:, 0]
    make = TransformersImages
    check_all_poolings(lambda **settings: make(given, root, **settings), layers, steps, inputs)
    assert make(given, root, layers=layers).width == (24 if (name, layers) == ("clip", "own") else 32)


def test_a_classifiers_own_features_are_what_its_last_layer_gets(root):
    inputs = clip(3)
    model, processor = loaded_by_transformers("vit", root / "affect-vit")
    with torch.inference_mode():
        logits = model(**processor(list(inputs.crops[inputs.found]), return_tensors="pt")).logits
        steps = torch.from_numpy(TransformersImages(HF["vit"], root, pooling="none").encode(inputs))
        assert (model.classifier(steps) - logits).abs().max() < 1e-5


def test_a_kind_that_nobody_has_looked_at_is_refused(tmp_path):
    folder = stand_ins.write(HF["vit"], tmp_path)
    transformers.BeitConfig().save_pretrained(folder)
    with pytest.raises(WeightsError, match=r"affect-vit.*kind 'beit'; known are clip_vision_model"):
        TransformersImages(HF["vit"], tmp_path).ready("cpu")


def test_a_processor_that_leaves_the_shape_open_is_refused(tmp_path):
    folder = stand_ins.write(HF["dinov2"], tmp_path)
    transformers.BitImageProcessor(size={"shortest_edge": 64}, do_center_crop=False).save_pretrained(folder)
    with pytest.raises(WeightsError, match="pictures of any shape; set a crop or a size"):
        TransformersImages(HF["dinov2"], tmp_path).prepare(clip(1))


# ------------------------------------------------------------------------------------------------ video


def test_few_frames_are_repeated_and_many_covered(root):
    encoder = TransformersVideo(VIDEO, root, layers="last")
    for n in (1, 7, 16, 17, 32, 41, 64):
        inputs = clip(n, shape=(64, 64))
        inputs.frames[:] = np.arange(n)[:, None, None, None]
        prepared = encoder.prepare(inputs)
        stacks = [item[:, 0, 0, 0].astype(int) for item in prepared.items]
        assert len(stacks) == -(-n // 16) and all(item.shape == (16, 64, 64, 3) for item in prepared.items)
        assert np.unique(np.concatenate(stacks)).tolist() == list(range(n)), "every frame is seen"
        if n <= 16:
            assert np.array_equal(stacks[0], np.linspace(0, n - 1, 16).round()) and prepared.keep is None
        else:
            assert all((np.diff(stack) == 1).all() for stack in stacks)
            kept = [stack[2 * a : 2 * b] for stack, (a, b) in zip(stacks, prepared.keep, strict=True)]
            assert np.unique(np.concatenate(kept)).tolist() == list(range(n)), "and counts"
            assert sum(map(len, kept)) <= n + len(stacks), "once, but for half a step where stacks meet"


@pytest.mark.parametrize("layers", LAYERS)
def test_features_of_videos_are_those_by_hand(root, layers):
    inputs = clip(20, shape=(80, 100))
    model = transformers.VideoMAEForVideoClassification.from_pretrained(root / "video").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(root / "video")
    steps = []
    for first, seen in ((0, 0), (4, 6)):  # frames 4 to 15 make the first six of eight steps of the second stack
        x = processor(list(inputs.frames[first : first + 16]), return_tensors="pt")["pixel_values"]
        output, blocks = outputs_of(model.videomae.encoder.layer[-4:], lambda x=x: model.videomae(x))
        with torch.inference_mode():
            assert (
                model.classifier(model.fc_norm(output.last_hidden_state.mean(1))) - model(x).logits
            ).abs().max() < 1e-5
            if layers == "own":
                steps.append(model.fc_norm(output.last_hidden_state.mean(1)))
                continue
        whole = torch.stack(blocks).sum(0) if layers == "last4" else output.last_hidden_state
        steps.append(whole.reshape(8, -1, 32).mean(1)[seen:])
    check_all_poolings(lambda **settings: TransformersVideo(VIDEO, root, **settings), layers, torch.cat(steps), inputs)


def test_a_video_model_without_a_classifier(tmp_path):
    folder = stand_ins.write(VIDEO, tmp_path)
    config = transformers.VideoMAEConfig.from_pretrained(folder)
    config.use_mean_pooling = False  # as after pre-training: a norm of its own
    transformers.VideoMAEModel(config).save_pretrained(folder)
    inputs = clip(16, shape=(64, 64))
    model = transformers.VideoMAEModel.from_pretrained(folder).eval()
    x = transformers.AutoImageProcessor.from_pretrained(folder)(list(inputs.frames), return_tensors="pt")
    with torch.inference_mode():
        expected = model(**x).last_hidden_state.mean(1)
    np.testing.assert_allclose(TransformersVideo(VIDEO, tmp_path).encode(inputs), expected[0], atol=1e-5)


# ------------------------------------------------------------------------------------------------ all of them

ONE_OF_EACH = {
    "timm": (TimmImages, TIMM["class-token"], "last4"),
    "cnn": (TimmImages, TIMM["cnn"], "own"),
    "clip": (TransformersImages, HF["clip"], "own"),
    "faces": (TransformersImages, HF["vit"], "last4"),
    "video": (TransformersVideo, VIDEO, "last"),
}
each_kind = pytest.mark.parametrize("kind", ONE_OF_EACH)


def make(kind, root, **settings):
    family, given, layers = ONE_OF_EACH[kind]
    return family(given, root, **{"layers": layers} | settings)


@each_kind
def test_what_shares_a_batch_changes_nothing(root, kind, monkeypatch):
    encoder = make(kind, root, pooling="none")
    clips = [
        clip(n, seed=n, shape=shape) for n, shape in ((1, (64, 64)), (23, (90, 120)), (5, (50, 40)), (12, (200, 90)))
    ]
    alone = [encoder.encode(each) for each in clips]
    for cost in (1, 7, 32, 1000):
        monkeypatch.setattr(type(encoder), "batch_cost", cost)
        together = encoder.run([encoder.prepare(each) for each in clips])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@each_kind
def test_an_encoder_travels_without_its_model(root, kind):
    encoder, inputs = make(kind, root), clip(4)
    before = encoder.encode(inputs)
    sent = pickle.dumps(encoder)
    assert len(sent) < 20_000
    worker = pickle.loads(sent)
    prepared = pickle.loads(pickle.dumps(worker.prepare(inputs)))
    assert worker._model is None, "preparing loads no weights"
    np.testing.assert_array_equal(encoder.run([prepared])[0], before)


@each_kind
def test_a_clip_without_pictures_is_missing_the_stream(root, kind):
    encoder = make(kind, root)
    with pytest.raises(MissingStream, match="no video"):
        encoder.prepare(clip(0))
    faceless = replace(clip(3), found=np.zeros(3, bool))
    if encoder.uses == {"faces"}:
        with pytest.raises(MissingStream, match="no face found"):
            encoder.prepare(faceless)
    else:
        encoder.prepare(faceless)


@each_kind
def test_weights_that_are_not_whole_are_refused(kind, tmp_path):
    _, given, _ = ONE_OF_EACH[kind]
    folder = stand_ins.write(given, tmp_path)
    file = folder / "model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)

    def problem():
        with pytest.raises(WeightsError) as caught:
            make(kind, tmp_path).ready("cpu")
        assert given.name in str(caught.value) and "again" in str(caught.value)
        return str(caught.value)

    file.write_bytes(whole[:-100])
    assert "model.safetensors" in problem()
    unused = ("text", "class", "head")
    lost = [key for key in sorted(tensors) if key.endswith("weight") and not any(part in key for part in unused)][2]
    save_file({key: value for key, value in tensors.items() if key != lost}, file, metadata={"format": "pt"})
    assert str(folder) in problem()
    save_file({**tensors, lost: torch.zeros(3, 5)}, file, metadata={"format": "pt"})
    assert str(folder) in problem()
    file.write_bytes(whole)
    (folder / "config.json").write_text('{"architecture": "no_such_model", "model_type": "no-such"}')
    assert str(folder) in problem()


@each_kind
def test_fingerprint_follows_layers_and_weights_but_not_the_place(root, kind, tmp_path):
    encoder = make(kind, root)
    _, given, layers = ONE_OF_EACH[kind]
    stand_ins.write(given, tmp_path / "same")
    stand_ins.write(given, tmp_path / "other", seed=1)
    assert make(kind, tmp_path / "same").fingerprint == encoder.fingerprint
    others = {make(kind, tmp_path / "other").fingerprint}
    others |= {make(kind, root, layers=other).fingerprint for other in LAYERS if other != layers and kind != "cnn"}
    assert encoder.fingerprint not in others


def test_settings_are_checked(root):
    with pytest.raises(EncoderError, match="layers = 'first'; choose from own, last, last4"):
        TimmImages(TIMM["cnn"], root, layers="first")
    with pytest.raises(EncoderError, match="activation = 'relu'; choose from own, quick_gelu"):
        TimmImages(TIMM["cnn"], root, activation="relu")


@each_kind
def test_half_precision_is_near_single(root, kind, monkeypatch):
    """As on a GPU; here on the CPU, which has the same types if not the speed."""
    inputs = clip(6)
    single = make(kind, root).encode(inputs)
    monkeypatch.setattr(ONE_OF_EACH[kind][0], "_dtype", lambda encoder, device: torch.float16)
    encoder = make(kind, root)
    half = encoder.encode(inputs)
    assert next(encoder._model.parameters()).dtype == torch.float16 and half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 0.02 * single.std()
