import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from conftest import REPO
from safetensors.numpy import save

from ecmf_lib.encoders import EncoderError
from ecmf_lib.encoders.cards import ASR_CARDS, CARDS
from ecmf_lib.encoders.hub import HubError, explain, status, wanted
from ecmf_lib.encoders.weights import find
from ecmf_lib.fetch import cards_of, fetch

TIMM, BIN = CARDS["siglip2-b32"], CARDS["roberta-zh"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """The part of the hub that its client talks to: model info, the list of files, and the files.

    Attributes
    ----------
    repos : dict of str to dict of str to bytes
        ``owner/name`` → file name → content.
    lies : dict of str to bytes
        File name → what is sent in place of the content that was announced.
    refuse : int
        Status of every answer, 0 for none.
    asked : list of str
        Files that were sent.
    """

    def __init__(self):
        self.repos, self.lies, self.refuse, self.code, self.asked = {}, {}, 0, "", []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.answer(self, send=False)

            def do_GET(self):
                hub.answer(self, send=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, *, send):
        path = unquote(urlsplit(request.path).path)
        if self.refuse:
            return self.reply(request, self.refuse, b"{}", {"X-Error-Code": self.code} if self.code else {}, send)
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(/revision/.+|/tree/.+)?", path):
            if found[1] not in self.repos:
                return self.reply(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, send)
            files = self.repos[found[1]]
            if (found[2] or "").startswith("/tree/"):
                tree = [{"type": "file", "path": name, **self.about(content)} for name, content in files.items()]
                return self.reply(request, 200, json.dumps(tree).encode(), {}, send)
            siblings = [{"rfilename": name, **self.about(content, "blobId")} for name, content in files.items()]
            info = {"id": found[1], "sha": COMMIT, "siblings": siblings}
            return self.reply(request, 200, json.dumps(info).encode(), {}, send)
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            content = self.repos[found[1]][found[3]]
            large = self.about(content).get("lfs")
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{large["oid"] if large else self.about(content)["oid"]}"'}
            if send:
                self.asked.append(found[3])
                content = self.lies.get(found[3], content)
            return self.reply(request, 200, content, headers, send)
        return self.reply(request, 404, b"{}", {}, send)

    @staticmethod
    def about(content, oid="oid"):
        entry = {"size": len(content), oid: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
        if content[:1] != b"{":  # the hub stores what is no text as large files
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "sha256": sha, "size": len(content), "pointerSize": 134}
        return entry

    @staticmethod
    def reply(request, status, content, headers, send):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if send:
            request.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A small hub on this machine, an empty cache, and the real client in between."""
    made = FakeHub()
    point_to(monkeypatch, made.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE", {})
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    yield made
    made.close()


def point_to(monkeypatch, address):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )


def tensors(seed=0):
    return save({"weight": np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32)})


def publish(hub, card=TIMM, **more):
    files = {"config.json": b'{"architecture": "vit_base_patch32_siglip_256"}', "model.safetensors": tensors()}
    hub.repos[card.source] = files | {"README.md": b"{}", "pytorch_model.bin": b"PK", "tf_model.h5": b"HDF"} | more
    return hub.repos[card.source]


def test_downloads_what_is_needed_and_nothing_twice(hub):
    publish(hub)
    said = []
    assert fetch([TIMM, CARDS["siglip2-b32-face"]], say=said.append) == []
    assert sorted(hub.asked) == ["config.json", "model.safetensors"]
    assert TIMM.licence in said[0] and TIMM.source in said[0] and "MB" in said[0]
    assert "is there" in said[1]  # the other branch's encoder has the same weights
    found = find(TIMM, None)
    assert (found.origin, found.commit) == ("hub", COMMIT)
    assert (found.path / "model.safetensors").read_bytes() == tensors()
    assert fetch([TIMM]) == []
    assert len(hub.asked) == 2


@pytest.mark.parametrize("revision", ["refs/pr/1", COMMIT])
def test_pull_requests_and_commits(hub, revision):
    card = replace(TIMM, revision=revision)
    publish(hub, card)
    assert fetch([card]) == []
    assert find(card, None).commit == COMMIT


def test_what_lies_in_the_users_folder_is_not_downloaded(hub, tmp_path):
    folder = tmp_path / "own" / TIMM.name
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(publish(hub)[name])
    assert fetch([TIMM], tmp_path / "own") == []
    (folder / "model.safetensors").write_bytes(b"short")
    (problem,) = fetch([TIMM], tmp_path / "own")
    assert "copy it again" in problem and hub.asked == []


def test_wrong_checksum_is_deleted_and_comes_right_the_next_time(hub):
    publish(hub)
    hub.lies["model.safetensors"] = tensors(seed=1)  # as long as the true ones
    (problem,) = fetch([TIMM])
    assert "wrong checksum" in problem and TIMM.name in problem
    hub.lies.clear()
    assert fetch([TIMM]) == []
    assert (find(TIMM, None).path / "model.safetensors").read_bytes() == tensors()


def test_damage_on_the_disk_is_mended(hub):
    publish(hub)
    fetch([TIMM])
    file = find(TIMM, None).path / "model.safetensors"
    file.resolve().write_bytes(tensors()[:-7])
    assert status(TIMM, None).state == "damaged"
    said = []
    assert fetch([TIMM], say=said.append) == []
    assert "cut short" in said[0]
    assert file.read_bytes() == tensors()


def test_download_that_breaks_off(hub):
    publish(hub)
    hub.lies["model.safetensors"] = tensors()[:-100]
    (problem,) = fetch([TIMM])
    assert "broke off" in problem
    assert status(TIMM, None).state == "to download"
    hub.lies.clear()
    assert fetch([TIMM]) == []


def test_wrong_name(hub):
    (problem,) = fetch([TIMM])
    assert "is not on" in problem and "check the name" in problem
    assert status(TIMM, None).state == "not published"


@pytest.mark.parametrize(
    ("answer", "code", "state", "words"),
    [
        (401, "", "not published", "hf auth login"),
        (401, "GatedRepo", "unreachable", "on request only"),
        (403, "GatedRepo", "unreachable", "on request only"),
        (403, "", "unreachable", "on request only"),
        (404, "RevisionNotFound", "not published", "no revision 'main'"),
        (404, "RepoNotFound", "not published", "check the name"),
        (404, "", "unreachable", "answered 404"),  # whoever answers there, it is no hub
        (503, "", "unreachable", "answered 503"),
        (429, "", "unreachable", "answered 429"),
    ],
)
def test_refusals(hub, answer, code, state, words):
    publish(hub)
    hub.refuse, hub.code = answer, code
    (problem,) = fetch([TIMM])
    assert words in problem and TIMM.name in problem and "\n" not in problem
    assert status(TIMM, None) == (state, problem)


def test_nobody_answers(hub, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    (problem,) = fetch([TIMM])
    assert "cannot be reached" in problem and "http://127.0.0.1:9" in problem and f"/{TIMM.name}" in problem
    assert status(TIMM, None).state == "unreachable"
    assert status(TIMM, None, online=False).state == "to download"


def test_offline_by_wish(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (problem,) = fetch([TIMM])
    assert "HF_HUB_OFFLINE is set" in problem and hub.asked == []


def test_hub_goes_away_in_between(hub, monkeypatch):
    publish(hub)
    real = FakeHub.answer

    def answer(self, request, *, send):
        self.refuse = 503 if "/resolve/" in request.path else 0
        real(self, request, send=send)

    monkeypatch.setattr(FakeHub, "answer", answer)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # the client is patient with a hub
    (problem,) = fetch([TIMM])
    assert "try again" in problem and "\n" not in problem


def test_full_disk(hub, monkeypatch):
    publish(hub)
    monkeypatch.setattr("ecmf_lib.fetch.shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
    (problem,) = fetch([TIMM])
    assert "are free" in problem and "HF_HOME" in problem and hub.asked == []
    full = explain(OSError(errno.ENOSPC, "No space left on device"), TIMM)
    assert "is full" in str(full)


def test_one_problem_does_not_stop_the_others(hub):
    publish(hub)
    problems = fetch([CARDS["dinov2-small"], TIMM])
    assert len(problems) == 1 and "dinov2-small" in problems[0]
    assert find(TIMM, None)


def test_shards_and_vocabulary(hub):
    card = CARDS["qwen3-4b"]
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": dict(zip("ab", names, strict=True))}).encode()
    hub.repos[card.source] = {
        "config.json": b'{"model_type": "qwen3"}',
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": index,
        names[0]: save({"a": np.ones(2, np.float32)}),
        names[1]: save({"b": np.ones(3, np.float32)}),
        "model.fp32-00001-of-00002.safetensors": b"x",
        "LICENSE": b"{}",
    }
    assert fetch([card]) == []
    assert set(hub.asked) == {"config.json", "tokenizer.json", "model.safetensors.index.json", *names}


def test_foreign_code_is_refused_before_and_after(hub):
    publish(hub, BIN, **{"config.json": b'{"model_type": "bert", "auto_map": {}}', "vocab.txt": b"a"})
    (problem,) = fetch([BIN])
    assert "auto_map" in problem
    (again,) = fetch([BIN])
    assert again == problem


def test_repository_with_pickles_only_is_not_downloaded(hub):
    publish(hub)
    for name in ("model.safetensors", "pytorch_model.bin"):
        del hub.repos[TIMM.source][name]
    hub.repos[TIMM.source]["model.pt"] = b"PK"
    (problem,) = fetch([TIMM])
    assert "has no model.safetensors" in problem and hub.asked == []
    assert status(TIMM, None).state == "not published"


def test_safetensors_before_pickles():
    names = {"config.json", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"}
    assert wanted(CARDS["clip-l14"], names) == ["config.json", "open_clip_model.safetensors"]
    bert = {"config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin", "flax_model.msgpack"}
    assert wanted(BIN, bert) == ["config.json", "pytorch_model.bin", "tokenizer_config.json", "vocab.txt"]
    with pytest.raises(HubError, match=r"model\.safetensors"):
        wanted(BIN, {"config.json", "vocab.txt", "model.pt"})


def test_onnx_file_of_a_repository(hub, real):
    card = replace(CARDS["fer-xception"], source="someone/faces/sub/net.onnx", pattern="")
    content = (real / "weights" / "fer2013_mini_XCEPTION.102-0.66.onnx").read_bytes()
    hub.repos["someone/faces"] = {"sub/net.onnx": content, "other.onnx": b"x"}
    assert fetch([card]) == []
    assert hub.asked == ["sub/net.onnx"] and find(card, None).path.read_bytes() == content


# ------------------------------------------------------------------------------------------------ insightface


@pytest.fixture
def zoo(hub, tmp_path, monkeypatch, real):
    """insightface's own download, from a zip on this machine into a home of its own."""
    content = (real / "weights" / "scrfd_500m_bnkps.onnx").read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("w600k_r50.onnx", content)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    served = {"zip": archive.getvalue()}

    def answer(self, request, *, send):
        FakeHub.reply(request, 200 if served["zip"] else 404, served["zip"], {}, send)

    monkeypatch.setattr(FakeHub, "answer", answer)
    monkeypatch.setattr("insightface.utils.storage.MODEL_ZOO_RELEASE_DOWNLOAD_URL", f"{hub.address}/")
    served["card"] = replace(CARDS["arcface-r50"], sha256=hashlib.sha256(content).hexdigest())
    return served


def test_model_pack(zoo, tmp_path):
    assert status(zoo["card"], None).state == "to download"
    assert fetch([zoo["card"]]) == []
    assert find(zoo["card"], None).origin == "insightface"
    assert sorted(os.listdir(tmp_path / "home" / ".insightface" / "models")) == ["buffalo_l"]


def test_model_pack_that_breaks_off_or_is_another(zoo):
    whole = zoo["zip"]
    zoo["zip"] = whole[: len(whole) // 2]
    assert "cannot be had" in fetch([zoo["card"]])[0]
    zoo["zip"] = b""
    assert "cannot be reached" in fetch([zoo["card"]])[0]
    assert status(zoo["card"], None).state == "unreachable"
    zoo["zip"] = whole
    other = replace(zoo["card"], sha256="0" * 64)
    assert "wrong checksum" in fetch([other])[0]
    assert fetch([zoo["card"]]) == []


# ------------------------------------------------------------------------------------------------ the command


def test_cards_by_profile_and_name():
    assert [card.name for card in cards_of("base", ["whisper-small"])][-1] == "whisper-small"
    assert cards_of("light") == []
    said = []
    assert fetch([], say=said.append) == [] and "nothing to download" in said[0]
    assert cards_of(None, ["whisper-small"]) == [ASR_CARDS["whisper-small"]]
    swapped = [
        card.name for card in cards_of("base", ["audio=wavlm-large:layers=last4", "text=char-ngram", "face=:a=1"])
    ]
    assert swapped == ["siglip2-b32", "siglip2-b32-face", "wavlm-large"]
    with pytest.raises(EncoderError, match="'wavlm-huge'"):
        cards_of("base", ["audio=wavlm-huge"])
    with pytest.raises(EncoderError, match="choose from light"):
        cards_of("huge")
    with pytest.raises(EncoderError, match="siglip2-b32"):
        cards_of(None, ["siglip"])


def test_command_takes_the_address_and_the_folder_from_the_environment(hub, tmp_path):
    publish(hub)
    machine = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "ECMF_DATA": str(tmp_path / "data")}
    machine = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    } | machine
    command = [sys.executable, "-c", "from ecmf_lib.run import app; app()", "fetch", "--encoder", TIMM.name]
    done = subprocess.run(command, env=machine, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "hf" / "hub" / "models--timm--vit_base_patch32_siglip_256.v2_webli").is_dir()
    hub.refuse = 404
    done = subprocess.run([*command, "--encoder", "e5-small"], env=machine, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is there" in done.stdout and "e5-small" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
@pytest.mark.parametrize(
    ("given", "fetched"),
    [
        ([], False),
        (["PROFILE=base"], True),
        (["PROFILE=base", "WEIGHTS=mine"], True),
        (["PROFILE=base", "ARGS=--encoder audio=egemaps"], False),
    ],
)
def test_make_reports_fetches_what_a_profile_lacks(given, fetched):
    # as from a shell of its own: these tests may themselves run under make
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    said = subprocess.run(
        ["make", "-n", "reports", *given], cwd=REPO, env=env, capture_output=True, text=True, check=True
    ).stdout
    *before, report = ["", *said.splitlines()]  # nothing comes before where .venv is there
    assert "ecmf report" in report and ("ecmf fetch --profile base" in before[-1]) == fetched
    assert ("--weights" in report) == ("WEIGHTS=mine" in given) == ("--weights" in before[-1])
