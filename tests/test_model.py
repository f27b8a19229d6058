"""What all pre-trained encoders share: batches across clips, poolings, settings, devices."""

import pickle

import numpy as np
import pytest

from ecmf_lib.encoders import model
from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import POOLINGS, ModelEncoder, Prepared, choose_device, pool
from ecmf_lib.encoders.weights import Weights

CARD = Card("double", "audio", "none", "nobody/double", 1, 1, 1, "CC0", "ours", "audio", {"layers": "last4"})


class Doubling(ModelEncoder):
    """Doubles samples; its model notes which batches it got."""

    common = ModelEncoder.common | {"chunk": 4}
    batch_cost = 8
    width = 1
    checkpoint = Weights(None, "0" * 16, "here")

    def _prepare(self, clip):
        if not len(clip.audio):
            raise MissingStream("no audio track")
        size = self.settings["chunk"]
        return Prepared(tuple(clip.audio[start : start + size] for start in range(0, len(clip.audio), size)))

    def _load(self, device, dtype):
        return []

    def _forward(self, items):
        self._model.append([len(item) for item in items])
        return [2 * item[:, None] for item in items]

    def cost(self, item):
        return len(item)


def clip(*audio):
    empty = np.zeros((0, 1, 1, 3), np.uint8)
    return ClipInputs("c", empty, np.zeros(0), empty, np.zeros(0, bool), np.array(audio, np.float32), "", "")


def test_items_of_several_clips_share_batches_longest_first():
    encoder = Doubling(CARD, pooling="none")
    clips = [clip(1, 2), clip(1, 2, 3, 4, 5), clip(7), clip(1, 2, 3)]
    features = encoder.run([encoder.prepare(each) for each in clips])
    assert encoder._model == [[4, 3], [2, 1, 1]], "at most 8, counting the padding up to the longest"
    for each, found in zip(clips, features, strict=True):
        assert np.array_equal(found[:, 0], 2 * each.audio), "in the order of the clips, chunks joined"
        assert np.array_equal(encoder.encode(each), found)


def test_an_item_larger_than_a_batch_goes_alone():
    encoder = Doubling(CARD, chunk=20, pooling="none")
    encoder.run([encoder.prepare(clip(*range(12))), encoder.prepare(clip(1)), encoder.prepare(clip(2))])
    assert encoder._model == [[12], [1, 1]]


def test_kept_ranges_drop_what_overlaps():
    encoder = Doubling(CARD, pooling="none")
    encoder.ready("cpu")
    prepared = Prepared((np.float32([1, 2, 3]), np.float32([3, 4, 5])), ((0, 2), (0, 3)))
    assert encoder.run([prepared])[0][:, 0].tolist() == [2, 4, 6, 8, 10]


def test_what_one_clip_cannot_do_does_not_touch_the_others(monkeypatch):
    import torch

    class Small(Doubling):
        def _forward(self, items):
            if sum(map(len, items)) > 3:
                raise torch.cuda.OutOfMemoryError("too large")
            return super()._forward(items)

    encoder = Small(CARD)
    first, second, third = encoder.run([encoder.prepare(clip(*audio)) for audio in ((1, 2, 3), (1, 2, 3, 4), (5,))])
    assert first == 4 and third == 10
    assert isinstance(second, EncoderError) and "'double': one input does not fit" in str(second)
    with pytest.raises(EncoderError, match="does not fit"):
        encoder.encode(clip(1, 2, 3, 4))


def test_numbers_beyond_half_precision_name_the_mend(monkeypatch):
    import torch

    encoder = Doubling(CARD)
    monkeypatch.setattr(encoder, "_dtype", lambda device: torch.float16)
    good, bad = encoder.run([encoder.prepare(clip(1)), encoder.prepare(clip(np.inf))])
    assert good == 2 and isinstance(bad, EncoderError) and "set precision = 'full'" in str(bad)


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling(how, rng):
    steps = rng.normal(size=(9, 3)).astype("f4")
    got = pool(steps, how)
    expected = {
        "mean": steps.mean(0),
        "mean+std": np.r_[steps.mean(0), steps.std(0)],
        "first": steps[0],
        "last": steps[-1],
        "none": steps,
    }
    assert got.dtype == np.float32
    if how == "attention":
        outlier = np.float32([[1, 2, 0]] * 8 + [[-3, 2, 0]])
        assert abs(pool(outlier, how)[0] - 1) < abs(outlier.mean(0)[0] - 1) / 5, "a step unlike the rest counts less"
        assert np.allclose(pool(steps[:1], how), steps[0], atol=1e-6)
    else:
        assert np.allclose(got, expected[how], atol=1e-6)


def test_dim_and_level_follow_the_pooling():
    assert (Doubling(CARD, pooling="mean+std").dim, Doubling(CARD, pooling="mean+std").level) == (2, "clip")
    assert (Doubling(CARD, pooling="none").dim, Doubling(CARD, pooling="none").level) == (1, "frame")


def test_settings_come_from_the_family_then_the_card_then_the_caller():
    assert Doubling(CARD).settings == {"layers": "last4", "pooling": "mean", "precision": "half", "chunk": 4}
    with pytest.raises(EncoderError, match="encoder 'double' has no setting size; it takes layers, pooling"):
        Doubling(CARD, size=1)
    with pytest.raises(EncoderError, match=r"pooling = 'median'; choose from mean, mean\+std"):
        Doubling(CARD, pooling="median")


def test_fingerprint_follows_settings_and_weights(monkeypatch):
    base = Doubling(CARD).fingerprint
    assert Doubling(CARD).fingerprint == base
    others = [Doubling(CARD, pooling="mean+std"), Doubling(CARD, precision="full"), Doubling(CARD, layers="last")]
    assert len({base, *(other.fingerprint for other in others)}) == 4
    monkeypatch.setattr(Doubling, "checkpoint", Weights(None, "1" * 16, "here"))
    assert Doubling(CARD).fingerprint != base


def test_a_pickled_encoder_leaves_its_model_behind():
    encoder = Doubling(CARD, pooling="none")
    encoder.encode(clip(*range(1000)))
    copy = pickle.loads(pickle.dumps(encoder))  # what multiprocessing does
    assert copy._model is None and copy._device is None
    assert np.array_equal(copy.encode(clip(1, 2)), encoder.encode(clip(1, 2)))


def test_devices():
    import torch

    assert choose_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto") in ("cpu", "mps")
        with pytest.raises(EncoderError, match="device 'cuda:1' is not there; this machine has cpu"):
            choose_device("cuda:1")
    assert Doubling(CARD)._dtype("cpu") == torch.float32
    assert Doubling(CARD)._dtype("cuda:0") == torch.float16
    assert Doubling(CARD, precision="full")._dtype("cuda") == torch.float32


def test_packing_keeps_every_item_once(rng):
    costs = rng.integers(1, 50, 200).tolist()
    order = sorted(range(200), key=lambda place: -costs[place])
    batches = model._packed(order, costs, 60)
    assert sorted(place for batch in batches for place in batch) == list(range(200))
    assert all(max(costs[p] for p in batch) * len(batch) <= 60 for batch in batches)
