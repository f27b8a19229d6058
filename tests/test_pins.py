"""environment.yml, pyproject.toml and requirements.lock name the same versions."""

import re
import tomllib

from conftest import REPO


def pins(lines) -> dict[str, str]:
    found = (re.match(r"[\s\-\"]*([A-Za-z0-9_.-]+)==([\w.+]+)", line) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def project() -> dict[str, str]:
    about = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = about["dependencies"] + about["optional-dependencies"]["dev"]
    assert all("==" in line for line in wanted), "every direct dependency is pinned"
    return pins(wanted)


def test_environment_has_the_pins_of_pyproject():
    assert pins((REPO / "environment.yml").read_text().splitlines()) == project()


def test_lock_has_the_pins_of_pyproject():
    text = (REPO / "requirements.lock").read_text()
    locked = pins(text.splitlines())
    assert {name: locked.get(name) for name in project()} == project()


def test_lock_has_hashes_and_no_addresses():
    text = (REPO / "requirements.lock").read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks), "every package has a hash"


def test_build_backend_is_the_pinned_one():
    about = tomllib.loads((REPO / "pyproject.toml").read_text())
    assert pins(about["build-system"]["requires"])["setuptools"] == project()["setuptools"]
