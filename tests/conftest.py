"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]

# "auto" is the CPU in tests, also where there is a GPU, whose half precision gives other numbers. Before torch comes.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251121)


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real clips, features and weights, which lies beside the checkout where there is one."""
    folder = REPO.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("no ../shared/real beside this checkout: tests on real material cannot run here")
    return folder


@pytest.fixture(scope="session")
def six_clips(tmp_path_factory) -> Path:
    """Folder of a demo corpus of six clips, made once for all tests; copy it before changing anything in it."""
    from ecmf_lib.demo import make_demo

    folder = tmp_path_factory.mktemp("six") / "demo"
    make_demo(folder, n_clips=6, progress=False)
    return folder
