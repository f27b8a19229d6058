"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]

# "auto" is the CPU in tests, also where there is a GPU, whose half precision gives other numbers. Before torch comes.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# `make test` runs a pytest process a core: a second thread in each would only take another's. Before torch comes.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


#: The files that take longest. With them first, no process of `make test` begins one when the others are done.
LONGEST = (
    "test_notebooks",
    "test_faults",
    "test_notebooks_odd",
    "test_train",
    "test_extract",
    "test_no_leaks",
    "test_security_pages",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def no_workers(patch: pytest.MonkeyPatch) -> None:
    """Decode in this process: a worker takes two seconds to start. What workers change is in test_extract.py."""
    for module in ("asr", "extract"):
        patch.setattr(f"ecmf_lib.{module}.run_jobs", lambda jobs, task, **_: ((job, task(job)) for job in jobs))


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
    make_demo(folder, n_clips=6, workers=1, progress=False)  # two workers take longer to start
    return folder
