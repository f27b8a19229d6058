"""Models beside the workers: chunk by chunk, in order, and what happens when one fails or is stopped."""

import json
import time
from pathlib import Path
from threading import Event
from typing import ClassVar

import numpy as np
import pytest
import typer

from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import Weights
from ecmf_lib.model_stage import FEW, WAITING, ModelError, ModelStage, computed, provenance, run_clips
from ecmf_lib.run import refusals

CARD = Card("tally", "global", "none", "nobody/tally", 2, 1, 1, "CC0", "ours", "audio")


class Tally(ModelEncoder):
    """Length and mean of the sound, and a trace of the company in the batch, as rounding leaves one in a real model."""

    common: ClassVar = ModelEncoder.common | {"seconds": 0.0}
    batch_cost = 3000
    width = 2
    checkpoint = Weights(Path("nowhere"), "0" * 16, "your folder")
    stopped = None  # in tests: an Event that ends the waiting

    def _prepare(self, clip: ClipInputs) -> Prepared:
        if not clip.audio.size:
            raise MissingStream("no audio track")
        return Prepared((clip.audio,))

    def _load(self, device, dtype):
        return "loaded"

    def _forward(self, items):
        assert self._model == "loaded"
        end = time.monotonic() + self.settings["seconds"]
        while time.monotonic() < end and not (self.stopped and self.stopped.is_set()):
            time.sleep(0.005)
        company = 1e-6 * sum(len(item) for item in items)
        return [np.array([[len(item) + company, item.mean() + company]], np.float32) for item in items]

    def cost(self, item):
        return len(item)


class Picky(Tally):
    """Fails on sound that starts with a certain number: as a whole, or for that item alone."""

    common: ClassVar = Tally.common | {"all": False}

    def _forward(self, items):
        if any(item[0] < 0 for item in items) or self.settings["all"]:
            raise RuntimeError("CUDA error: unspecified")
        return super()._forward(items)


def sound(*values) -> Prepared:
    return Prepared((np.array(values, np.float32),))


def test_chunks_come_back_in_order_with_all_streams():
    stage = ModelStage({"global": Tally(CARD), "audio": Tally(CARD), "text": object()}, "cpu")
    assert "global" in stage and "text" not in stage and stage.device == "cpu"
    assert stage.ready(["global", "text"]) == ["global"] and stage.ready(["global", "audio"]) == ["audio"]
    found = []
    for number in range(5):
        chunk = {"global": [sound(1, 2, 3)] * 2, "audio": [sound(number)]}
        found += stage.give(number, chunk)
    found += stage.finish()
    stage.close()
    assert [number for number, _ in found] == list(range(5))
    for number, answers in found:
        np.testing.assert_allclose(answers["global"], [[3, 2]] * 2, atol=1e-4)
        np.testing.assert_allclose(answers["audio"], [[1, number]], atol=1e-4)


def test_no_more_than_a_few_chunks_are_under_way():
    encoder = Tally(CARD, seconds=60)
    encoder.stopped = Event()
    stage = ModelStage({"global": encoder}, "cpu")
    taken = []
    for number in range(1 + WAITING):
        taken += stage.give(number, {"global": [sound(1)]})
    assert not taken, "one runs, the others wait"
    one_more = stage.give(9, {"global": [sound(1)]})
    encoder.stopped.set()
    assert next(one_more)[0] == 0, "handing over another one waits until the first is done"
    stage.close()


def test_closing_stops_in_the_middle_of_a_chunk():
    encoder = Tally(CARD, seconds=3600)
    stage = ModelStage({"global": encoder}, "cpu")
    assert list(stage.give(0, {"global": [sound(1)]})) == []
    stage.close()  # would wait an hour
    assert stage._thread is None


def test_without_models_there_is_nothing():
    stage = ModelStage({"text": object()}, "no such device")
    assert stage.device == "" and stage.ready(["text"]) == [] and list(stage.finish()) == []
    stage.close()
    with pytest.raises(EncoderError, match="device 'tpu' is not there"):
        ModelStage({"global": Tally(CARD)}, "tpu")


def test_one_bad_clip_does_not_touch_the_others():
    encoder = Picky(CARD)
    answers = run_clips(encoder, [sound(1, 2), sound(-1), sound(3)])
    assert isinstance(answers[1], RuntimeError)
    np.testing.assert_allclose([answers[0], answers[2]], [[2, 1.5], [1, 3]], atol=1e-4)
    (answer,) = run_clips(encoder, [sound(-1)])
    assert isinstance(answer, RuntimeError)


def test_a_model_that_works_for_nothing_is_an_error_for_the_caller():
    stage = ModelStage({"global": Picky(CARD, all=True)}, "cpu")
    with pytest.raises(ModelError, match=r"'tally' fails on every clip, .*RuntimeError: CUDA error.*run again"):
        list(stage.give(0, {"global": [sound(1)] * (FEW + 1)}))
        list(stage.finish())
    stage.close()


def test_a_few_clips_may_all_be_bad_without_the_model_being_at_fault():
    answers = run_clips(Picky(CARD, all=True), [sound(1)] * FEW)
    assert [type(answer) for answer in answers] == [RuntimeError] * FEW


def test_models_are_let_go_of_at_the_end():
    encoder = Tally(CARD)
    stage = ModelStage({"global": encoder}, "cpu")
    stage.ready(["global"])
    assert encoder._model is not None
    stage.close()
    assert encoder._model is None


def test_the_command_line_says_so_without_a_traceback(capsys):
    with pytest.raises(typer.Exit) as ended, refusals():
        run_clips(Picky(CARD, all=True), [sound(1)] * (FEW + 1))
    assert ended.value.exit_code == 2 and "fails on every clip" in capsys.readouterr().err


def test_a_wrong_number_of_answers_is_not_passed_on(monkeypatch):
    monkeypatch.setattr(Tally, "run", lambda self, clips: [])
    with pytest.raises(ModelError, match="0 answers for 5 clips"):
        run_clips(Tally(CARD), [sound(1)] * 5)


def test_where_numbers_come_from(tmp_path, monkeypatch):
    encoder = Tally(CARD)
    said = {"origin": "hub", "commit": "c0ffee", "digest": "1" * 16}
    monkeypatch.setattr(Tally, "checkpoint", Weights(tmp_path, "1" * 16, "hub", "c0ffee"))
    assert provenance(encoder) == {"checkpoint": said}
    (tmp_path / "config.json").write_text(json.dumps({"ecmf_stand_in": True}))
    assert provenance(encoder) == {"checkpoint": said, "stand_in": True}
    for content, random in ((b"x" * 9000 + b"ecmf_stand_in", True), (b"trained", False)):  # an ONNX file
        (tmp_path / "model.onnx").write_bytes(content)
        monkeypatch.setattr(Tally, "checkpoint", Weights(tmp_path / "model.onnx", "1" * 16, "your folder"))
        assert ("stand_in" in provenance(encoder)) == random
    cpu = {"device": "cpu", "precision": "float32"}
    assert computed(encoder, "cpu") == computed(encoder, "cpu", cpu) == cpu
    assert computed(encoder, "cuda", cpu) == {"device": "cpu + cuda", "precision": "float32 + float16"}
