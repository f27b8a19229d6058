"""The long tests: `make torture` names this folder, `make test` passes it by."""

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files here out unless the command line names this folder or one of them."""
    named = [Path(str(given).partition("::")[0]).resolve() for given in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True
