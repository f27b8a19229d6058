"""A bundle that somebody made on purpose, digests and all, is refused before anything of it is used."""

import pytest
from hostile_material import _bundle as make_bundle
from hostile_material import clip_data
from hostile_store import FORGED, _bundle

from ecmf_lib.bundle_files import BundleError
from ecmf_lib.ensemble import Bundle
from ecmf_lib.member_check import member_problem


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    make_bundle(folder / "bundle")
    return folder


def test_a_good_member_has_no_problem_and_predicts_as_before(material):
    bundle = Bundle.load(material / "bundle")
    assert [member_problem(model) for model in bundle.models] == ["", ""]
    assert bundle.predict(clip_data())[0].shape == (24, 3)


#: What a corpus is extracted with is held to the settings, when there is a corpus.
LATER = "an extraction that is none"


@pytest.mark.parametrize("what", [what for what in FORGED if what != LATER])
def test_forged_bundles_are_refused_when_they_are_loaded(material, tmp_path, what):
    path = _bundle(FORGED[what], sealed=True)(tmp_path, material)
    with pytest.raises(BundleError, match="bundle"):
        Bundle.load(path)
