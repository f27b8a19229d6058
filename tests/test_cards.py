import re

from ecmf_lib.config import PROFILES, STREAMS
from ecmf_lib.encoders import FAMILIES, encoders
from ecmf_lib.encoders.cards import ASR_CARDS, CARDS
from ecmf_lib.encoders.weights import ONE_FILE, PARTS

FED = {"global": "frames", "face": "faces", "audio": "audio", "text": "text"}


def test_cards_are_complete():
    for name, card in CARDS.items():
        assert name == card.name and card.stream in STREAMS and card.family in FAMILIES, name
        assert card.uses == FED[card.stream], name
        assert card.width > 0 and card.parameters > 0 and card.licence and card.choice, name
        assert (card.family in PARTS) != (card.family in ONE_FILE), name
        hub = re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+\.onnx)?|insightface:\w+/\w+\.onnx", card.source)
        assert hub or (not card.source and card.pattern and not card.download), name
        assert set(card.settings) <= {"layers", "pooling", "prefix", "activation"}, name
    assert all(card.family == "asr-whisper" and card.family in PARTS for card in ASR_CARDS.values())


def test_openai_clip_gets_the_activation_that_it_was_trained_with():
    for card in CARDS.values():
        assert (card.settings.get("activation") == "quick_gelu") == card.source.endswith("clip_224.openai"), card.name


def test_download_is_at_least_what_the_parameters_take_in_half_precision():
    for card in (*CARDS.values(), *ASR_CARDS.values()):
        if card.source:
            assert card.download > 0.98 * card.parameters * 2, card.name
            assert card.memory == max(1, round(card.parameters * 4)), card.name


def test_profiles_name_an_encoder_for_each_stream():
    known = dict(encoders()[["name", "stream"]].itertuples(index=False))
    for name, chosen in PROFILES.items():
        assert tuple(chosen) == STREAMS, name
        assert {stream: known[encoder] for stream, encoder in chosen.items()} == dict(
            zip(STREAMS, STREAMS, strict=True)
        )


def downloads(profile):
    cards = [CARDS[encoder] for encoder in PROFILES[profile].values() if encoder in CARDS]
    return sum({card.source: card.download for card in cards}.values())


def test_size_of_the_profiles():
    assert downloads("light") == 0
    assert 800 < downloads("base") < 1100  # "about 1 GB"
    assert downloads("paper") > downloads("base")


def test_base_and_paper_can_be_had_by_anybody():
    """Nothing of the profiles needs a request to its owner, foreign code or a file that no hub has."""
    for profile in ("base", "paper"):
        for encoder in PROFILES[profile].values():
            assert CARDS[encoder].source and "own terms" not in CARDS[encoder].licence, encoder
