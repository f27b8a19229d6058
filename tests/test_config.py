"""Settings are checked, not trusted."""

import pytest

from ecmf_lib.config import NOTEBOOKS, REPO, FuseSettings, SettingsError, check_parameters, resolve


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_defaults_are_valid(name):
    assert check_parameters(name, {}).corpus == "demo"


def test_every_problem_is_named_at_once():
    given = {"sed": 1, "folds": 1, "epochs": "60", "seeds": True, "corpus": ""}
    with pytest.raises(SettingsError) as caught:
        check_parameters("03_fuse_and_ablate", given)
    message = str(caught.value)
    assert "5 bad parameter(s)" in message
    for name in given:
        assert name in message
    assert "unknown; this notebook takes corpus, output, seed" in message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"streams": ["face", 7]}, "streams.1 = 7: .*only these streams"),
        ({"fusions": "concatenation"}, "fusions = 'concatenation': .*only these models"),
        ({"encoders": {"audio": None}}, r"encoders\.audio"),
        ({"trials": -1}, "trials = -1: .*0 = the fixed recipe"),
        ({"side_seeds": -1}, "side_seeds = -1"),
        ({"steps": 257}, "steps = 257"),
    ],
)
def test_what_is_wrong_inside_a_value_is_named(given, named):
    with pytest.raises(SettingsError, match=named):
        check_parameters("03_fuse_and_ablate", given)


def test_unknown_notebook():
    with pytest.raises(SettingsError, match="choose from 00_start_here"):
        check_parameters("99_nothing", {})


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        FuseSettings().seed = 3


def test_relative_paths_belong_to_the_checkout():
    assert resolve("reports/demo") == REPO / "reports/demo"
    assert str(resolve("/tmp/x")).endswith("/tmp/x")
