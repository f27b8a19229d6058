import collections
import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from ecmf_lib.encoders.cards import ASR_CARDS, CARDS
from ecmf_lib.encoders.integrity import Unfit, check_weights
from ecmf_lib.encoders.weights import WeightsError, find

TIMM, TEXT, FACES = CARDS["siglip2-b32"], CARDS["granite-embedding"], CARDS["fer-xception"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path_factory, monkeypatch):
    """An empty hub's cache, an empty home, and a memory of checksums of its own."""
    folder = tmp_path_factory.mktemp("machine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("ecmf_lib.encoders.weights.insightface_folder", lambda: folder / "insightface")
    monkeypatch.setenv("ECMF_DATA", str(folder / "data"))
    return folder


def write_timm(folder, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_siglip_256"}))
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    save_file({"weight": values, "bias": values[0]}, folder / "model.safetensors")
    return folder


def write_text(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    save_file({"weight": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    return folder


def shard(folder, names):
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(names):
        if "/" not in name:
            save_file({f"w{number}": np.ones(number + 1, np.float32)}, folder / name)
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def in_hub(machine, card, folder):
    """The files of a folder as the hub's client stores them: blobs named by their checksum, and links to them."""
    repo = machine / "hub" / f"models--{card.source.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    for made in (repo / "blobs", snapshot, (repo / "refs" / card.revision).parent):
        made.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / card.revision).write_text(COMMIT)
    for file in folder.iterdir():
        content = file.read_bytes()
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        name = small if file.suffix == ".json" else hashlib.sha256(content).hexdigest()
        (repo / "blobs" / name).write_bytes(content)
        (snapshot / file.name).symlink_to(f"../../blobs/{name}")
    return snapshot


def refusal(card, root, state):
    with pytest.raises(WeightsError) as caught:
        find(card, root)
    assert caught.value.state == state
    assert card.name in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ places


def test_nothing_there_says_how_to_get_it(tmp_path):
    message = refusal(TIMM, tmp_path, "missing")
    assert f"ecmf fetch --encoder {TIMM.name}" in message
    assert TIMM.source in message and f"{tmp_path}/{TIMM.name}" in message and "another encoder" in message


def test_own_folder_goes_before_the_hub(tmp_path, nowhere_else):
    in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published", seed=1))
    assert find(TIMM, tmp_path).origin == "hub"
    assert find(TIMM, tmp_path).commit == COMMIT
    write_timm(tmp_path / TIMM.name, seed=2)
    own = find(TIMM, tmp_path)
    assert (own.origin, own.path, own.commit) == ("your folder", tmp_path / TIMM.name, "")
    assert own.digest != find(TIMM, None).digest


def test_another_revision_in_the_cache_is_another_checkpoint(tmp_path, nowhere_else):
    in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published"))
    refusal(replace(TIMM, revision="refs/pr/1"), None, "missing")
    assert find(replace(TIMM, revision=COMMIT), None).commit == COMMIT


def test_text_encoders_need_their_vocabulary(tmp_path):
    folder = write_text(tmp_path / TEXT.name)
    whole = find(TEXT, tmp_path).digest
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert find(TEXT, tmp_path).digest != whole  # it changes the tokens
    (folder / "README.md").write_text("read me")
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json is not there" in refusal(TEXT, tmp_path, "damaged")


def test_a_repository_fetched_for_fewer_files_is_not_damaged(tmp_path, nowhere_else):
    """Whisper's encoder does without the vocabulary that the speech recogniser needs; both are one repository."""
    folder = tmp_path / "published"
    write_timm(folder)
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "preprocessor_config.json").write_text("{}")
    in_hub(nowhere_else, CARDS["whisper-small-encoder"], folder)
    assert find(CARDS["whisper-small-encoder"], None).origin == "hub"
    assert "no weights on this machine" in refusal(ASR_CARDS["whisper-small"], None, "missing")


def test_pattern_takes_the_largest_file(real):
    found = find(FACES, real / "weights")
    assert found.path.name == "fer2013_big_XCEPTION.54-0.66.onnx"


def test_onnx_by_name_goes_before_the_pattern_and_its_name_does_not_matter(tmp_path, real):
    big = real / "weights" / "fer2013_big_XCEPTION.54-0.66.onnx"
    shutil.copy(real / "weights" / "fer2013_mini_XCEPTION.102-0.66.onnx", tmp_path / "fer2013_mini_XCEPTION.onnx")
    shutil.copy(big, tmp_path / f"{FACES.name}.onnx")
    assert find(FACES, tmp_path).digest == find(FACES, real / "weights").digest
    (tmp_path / FACES.name).mkdir()
    assert "holds 0 ONNX files" in refusal(FACES, tmp_path, "damaged")
    shutil.copy(big, tmp_path / FACES.name / "whatever.onnx")
    assert find(FACES, tmp_path).path.name == "whatever.onnx"


def test_what_no_hub_has_says_so(tmp_path):
    assert "fer2013*XCEPTION*.onnx" in refusal(FACES, tmp_path, "missing")


def test_insightface_pack_is_compared_with_its_known_checksum(nowhere_else, real):
    card = CARDS["arcface-r50"]
    refusal(card, None, "missing")
    file = nowhere_else / "insightface" / "buffalo_l" / "w600k_r50.onnx"
    file.parent.mkdir(parents=True)
    shutil.copy(real / "weights" / "scrfd_500m_bnkps.onnx", file)
    assert "wrong checksum" in refusal(card, None, "damaged")
    there = replace(card, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert find(there, None).origin == "insightface"


# ------------------------------------------------------------------------------------------------ wholeness


def test_digest_is_of_the_content_not_of_the_place(tmp_path, nowhere_else):
    one = find(TIMM, write_timm(tmp_path / "a" / TIMM.name).parent).digest
    other = find(TIMM, write_timm(tmp_path / "b" / TIMM.name).parent).digest
    in_hub(nowhere_else, TIMM, tmp_path / "a" / TIMM.name)
    assert one == other == find(TIMM, None).digest
    assert len(one) == 16 and int(one, 16) >= 0
    path = tmp_path / "b" / TIMM.name / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert find(TIMM, tmp_path / "b").digest != one


def test_second_call_reads_no_weights(tmp_path, monkeypatch):
    folder = write_timm(tmp_path / TIMM.name)
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    monkeypatch.setattr("ecmf_lib.shards.time.time_ns", lambda: 2**62)  # else files this young are never trusted
    first = find(TIMM, tmp_path)
    monkeypatch.setattr("ecmf_lib.shards.hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert find(TIMM, tmp_path) == first


@pytest.mark.parametrize("left", [0, 5, 60, -1])
def test_half_downloaded_safetensors(tmp_path, left):
    path = write_timm(tmp_path / TIMM.name) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    message = refusal(TIMM, tmp_path, "damaged")
    assert "cut short" in message and "model.safetensors" in message


def test_safetensors_with_something_behind_it_is_damaged(tmp_path):
    path = write_timm(tmp_path / TIMM.name) / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    assert "damaged" in refusal(TIMM, tmp_path, "damaged")


@pytest.mark.parametrize("header", [b"{", b"[]", b'{"w": 1}', b'{"w": {"data_offsets": []}}'])
def test_safetensors_with_a_broken_header(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Unfit):
        check_weights(path)


def test_changed_blob_in_the_hubs_cache_has_the_wrong_checksum(tmp_path, nowhere_else):
    snapshot = in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published"))
    blob = (snapshot / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    message = refusal(TIMM, None, "damaged")
    assert "wrong checksum" in message and "ecmf fetch" in message


def test_changed_small_file_in_the_hubs_cache_too(tmp_path, nowhere_else):
    snapshot = in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published"))
    (snapshot / "config.json").resolve().write_text('{"architecture": "other"}')
    assert "wrong checksum" in refusal(TIMM, None, "damaged")


def test_interrupted_download_is_named(tmp_path, nowhere_else):
    snapshot = in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published"))
    blob = (snapshot / "model.safetensors").resolve()
    (snapshot / "model.safetensors").unlink()
    blob.rename(f"{blob}.1a2b3c4d.incomplete")
    assert "a download broke off" in refusal(TIMM, None, "missing")


def test_link_to_nothing_is_damaged(tmp_path, nowhere_else):
    snapshot = in_hub(nowhere_else, TIMM, write_timm(tmp_path / "published"))
    (snapshot / "model.safetensors").resolve().unlink()
    refusal(TIMM, None, "damaged")


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_unreadable_config(tmp_path, content):
    (write_timm(tmp_path / TIMM.name) / "config.json").write_text(content)
    assert "config.json" in refusal(TIMM, tmp_path, "damaged")


def test_checkpoint_of_another_library(tmp_path):
    (write_timm(tmp_path / TIMM.name) / "config.json").write_text('{"model_type": "vit"}')
    assert "not a checkpoint of this family (timm)" in refusal(TIMM, tmp_path, "damaged")


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_folder_without_a_file(tmp_path, lost):
    (write_timm(tmp_path / TIMM.name) / lost).unlink()
    assert f"{lost} is not there" in refusal(TIMM, tmp_path, "damaged")


def test_a_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / TIMM.name).write_text("weights")
    assert "is no folder" in refusal(TIMM, tmp_path, "damaged")


def test_shards(tmp_path):
    folder = write_text(tmp_path / TEXT.name)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    shard(folder, names)
    digest = find(TEXT, tmp_path).digest
    elsewhere = (folder / names[1]).rename(tmp_path / "shard")
    assert f"{names[1]} is not there" in refusal(TEXT, tmp_path, "damaged")
    (folder / names[1]).symlink_to(elsewhere)  # as the hub's client and people with little space lay them out
    assert find(TEXT, tmp_path).digest == digest
    (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:-1])
    assert "cut short" in refusal(TEXT, tmp_path, "damaged")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "sub/x.safetensors", "..", ""])
def test_index_that_leaves_its_folder(tmp_path, name):
    folder = write_text(tmp_path / TEXT.name)
    save_file({"w0": np.ones(1, np.float32)}, tmp_path / "secret.safetensors")
    shard(folder, [])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w0": name}}))
    assert "outside its folder" in refusal(TEXT, tmp_path, "unsafe")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"w": 1}}, {"weight_map": []}])
def test_index_that_names_nothing(tmp_path, index):
    folder = write_text(tmp_path / TEXT.name)
    shard(folder, [])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names no files" in refusal(TEXT, tmp_path, "damaged")


def test_onnx_cut_short_or_something_else(tmp_path, real):
    whole = (real / "weights" / "fer2013_mini_XCEPTION.102-0.66.onnx").read_bytes()
    path = tmp_path / "a.onnx"
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(Unfit):
            check_weights(path)
    path.write_bytes(whole)
    check_weights(path)


# ------------------------------------------------------------------------------------------------ safety


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_foreign_code_is_refused(tmp_path, file):
    folder = write_text(tmp_path / TEXT.name)
    config = {"model_type": "xlm-roberta", "auto_map": {"AutoModel": "modeling_x.X"}}
    (folder / file).write_text(json.dumps(config))
    message = refusal(TEXT, tmp_path, "unsafe")
    assert "auto_map" in message and file in message


def test_weights_that_only_transformers_would_look_at_are_refused(tmp_path):
    folder = write_text(tmp_path / TEXT.name)
    (folder / "config.json").write_text('{"model_type": "xlm-roberta", "transformers_weights": "other.safetensors"}')
    assert "'other.safetensors'" in refusal(TEXT, tmp_path, "damaged")


@pytest.mark.parametrize("name", ["pytorch_model.pth", "model.pth"])
def test_a_pickle_that_timm_would_take_before_the_safetensors_is_refused(tmp_path, name):
    folder = write_timm(tmp_path / TIMM.name)
    (folder / name).write_bytes(b"PK")
    assert find(TIMM, tmp_path).digest, "timm does not look at it"
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    assert f"{name} would be read in place of" in refusal(TIMM, tmp_path, "unsafe")


@pytest.mark.parametrize("new", [True, False])
def test_pickled_tensors_are_fine_and_pickled_modules_are_not(tmp_path, new):
    torch = pytest.importorskip("torch")
    folder = write_text(tmp_path / TEXT.name)
    (folder / "model.safetensors").unlink()
    module = torch.nn.Linear(2, 3)
    tensors = module.state_dict() | {"half": torch.zeros(2, dtype=torch.bfloat16), "param": module.weight}
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    assert find(TEXT, tmp_path).digest
    torch.save(module, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    message = refusal(TEXT, tmp_path, "unsafe")
    assert "torch.nn.modules.linear.Linear" in message and "safetensors" in message
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[:100])
    assert "cut short" in refusal(TEXT, tmp_path, "damaged")


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_with_commands_are_refused_unread(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    table = collections.OrderedDict(a=torch.zeros(1), b=Evil())
    torch.save(table, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    with pytest.raises(Unfit) as caught:
        check_weights(tmp_path / "pytorch_model.bin")
    assert not caught.value.safe


def test_a_pickle_in_front_of_a_zip_does_not_hide_behind_it(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(2)}, file)
    whole = file.read_bytes()
    torch.save({"a": Evil()}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes() + whole)
    with pytest.raises(Unfit) as caught:
        check_weights(file)
    assert not caught.value.safe


@pytest.mark.parametrize("name", ["model.pt", "weights.pkl", "last.ckpt"])
def test_only_pickles_there(tmp_path, name):
    folder = write_timm(tmp_path / TIMM.name)
    (folder / "model.safetensors").rename(folder / name)
    message = refusal(TIMM, tmp_path, "unsafe")
    assert name in message and "safetensors" in message


def test_a_weights_folder_that_is_not_there_is_no_reason_to_take_others(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights folder .*nowhere; check the path"):
        find(CARDS["mhubert-147"], tmp_path / "nowhere")
