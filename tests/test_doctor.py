import json
import types

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ecmf_lib import doctor
from ecmf_lib.encoders import EncoderError
from ecmf_lib.encoders.cards import ASR_CARDS, CARDS
from ecmf_lib.run import app

AUDIO = "mhubert-147"
AS_AUDIO = {"audio": AUDIO}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with nothing downloaded and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("ecmf_lib.encoders.weights.insightface_folder", lambda: tmp_path / "insightface")
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))


def lay_down(folder, card):
    """A checkpoint of a speech model, as far as can be seen without loading it."""
    target = folder / card.name
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps({"model_type": "hubert", "hidden_size": 8}))
    for name in ("preprocessor_config.json", "tokenizer.json"):
        (target / name).write_text("{}")
    save_file({"weight": np.ones(3, np.float32)}, target / "model.safetensors")
    return folder


def row(found, name):
    return next(line for line in found.lines if name in line.split())


def test_light_needs_nothing():
    found = doctor.examine("light")
    assert found.problems == []
    text = "\n".join(found.lines)
    for word in ("Python", "device", "memory", "disk", "packages", "detector lbp", "none needed", "audEERING"):
        assert word in text
    assert max(map(len, found.lines)) <= 100


def test_missing_weights_and_no_network():
    found = doctor.examine("light", AS_AUDIO)
    assert row(found, AUDIO).endswith("unreachable")
    assert AUDIO in found.problems[0] and "check the network" in found.problems[0]
    assert "http://127.0.0.1:9 cannot be reached" in " ".join(" ".join(found.lines).split())


def test_missing_weights_without_asking():
    found = doctor.examine("light", AS_AUDIO, online=False)
    assert row(found, AUDIO).endswith("to download")
    assert found.problems == [f"to download, {CARDS[AUDIO].download} MB: ecmf fetch --encoder {AUDIO}"]


def test_one_repository_is_counted_once():
    swaps = {"audio": "whisper-small-encoder"}
    found = doctor.examine("light", swaps, asr="whisper-small", online=False)
    assert row(found, "whisper-small").startswith("transcripts")
    sizes = {CARDS["whisper-small-encoder"].download, ASR_CARDS["whisper-small"].download}
    assert any(f"to download, {size} MB: " in found.problems[0] for size in sizes)
    assert "--encoder whisper-small --encoder whisper-small-encoder" in found.problems[0]


def test_weights_in_the_users_folder(tmp_path):
    folder = lay_down(tmp_path / "weights", CARDS[AUDIO])
    found = doctor.examine("light", AS_AUDIO, weights=folder)
    assert row(found, AUDIO).endswith("present") and found.problems == []
    assert "RANDOM" not in "\n".join(found.lines)
    (folder / AUDIO / "config.json").write_text('{"model_type": "hubert", "ecmf_stand_in": true}')
    found = doctor.examine("light", AS_AUDIO, weights=folder)
    assert "RANDOM weights" in "\n".join(found.lines) and found.problems == []
    (folder / AUDIO / "model.safetensors").write_bytes(b"short")
    found = doctor.examine("light", AS_AUDIO, weights=folder)
    assert row(found, AUDIO).endswith("damaged")
    assert "get them again" in found.problems[0]
    assert "cut short" in "\n".join(found.lines)


def test_settings_reach_the_table():
    found = doctor.examine("light", {"audio": {"name": AUDIO, "pooling": "mean+std"}}, online=False)
    assert row(found, AUDIO).split()[2] == str(2 * CARDS[AUDIO].width)
    with pytest.raises(EncoderError, match="pooling"):
        doctor.examine("light", {"audio": {"name": AUDIO, "pooling": "maximum"}})


def test_unknown_names():
    with pytest.raises(EncoderError, match="no profile 'huge'"):
        doctor.examine("huge")
    with pytest.raises(EncoderError, match="no speech recogniser 'parrot'"):
        doctor.examine("light", asr="parrot")


def test_too_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "memory_mb", lambda: 1000)
    assert "1,500 MB are needed, 1,000 MB are there" in doctor.examine("light").problems[0]


def test_memory_of_a_container(tmp_path, monkeypatch):
    whole = doctor.memory_mb()
    (tmp_path / "memory.max").write_text("2000000000\n")
    monkeypatch.setattr(doctor, "_LIMITS", (tmp_path / "memory.max", tmp_path / "absent"))
    assert doctor.memory_mb() == min(2000, whole or 2000)
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.memory_mb() == whole or whole is None


def test_too_little_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10**6))
    problems = doctor.examine("light", AS_AUDIO, online=False).problems
    assert any("disk: 378 MB are needed" in problem and "1 MB are free" in problem for problem in problems)


def test_missing_and_other_packages(monkeypatch):
    monkeypatch.setattr(doctor, "_pins", lambda: {"numpy": "0.1", "no-such-package": "1.0"})
    found = doctor.examine("light")
    assert "packages missing: no-such-package 1.0" in found.problems[0]
    assert "(pinned 0.1)" in " ".join(" ".join(found.lines).split())


def test_pins_are_those_of_the_project(monkeypatch, tmp_path):
    pins = doctor._pins()
    assert {"numpy", "torch", "timm"} <= set(pins)
    monkeypatch.setattr(doctor, "REPO", tmp_path)  # installed without a checkout
    assert set(doctor._pins()) >= {"numpy", "torch", "timm"}


def test_detector_that_cannot_be_had(tmp_path):
    found = doctor.examine("light", weights=tmp_path / "absent")
    assert "no folder" in found.problems[0]


def test_device_without_a_driver_is_the_cpu(monkeypatch):
    monkeypatch.setattr(doctor.os.path, "exists", lambda _: False)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert doctor.devices() == ["cpu"]


def test_command():
    run = CliRunner().invoke
    good = run(app, ["doctor"])
    assert good.exit_code == 0 and good.output.endswith("profile light can run on this machine\n")
    missing = run(app, ["doctor", "--encoder", f"audio={AUDIO}", "--offline"])
    assert missing.exit_code == 1 and missing.output.rstrip().endswith(f"ecmf fetch --encoder {AUDIO}")
    assert run(app, ["doctor", "--profile", "huge"]).exit_code == 2
    assert run(app, ["doctor", "--encoder", "audio"]).exit_code == 2
    assert run(app, ["doctor", "--encoder", "audio=nobody"]).exit_code == 2
