"""docs/licences.md lists every package of the lock, and no licence in it is unknown."""

import importlib.util
import re
from email.message import Message

import pytest
from conftest import REPO

spec = importlib.util.spec_from_file_location("licences", REPO / "tools" / "licences.py")
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)

LOCK = (REPO / "requirements.lock").read_text(encoding="utf-8")


def listed() -> dict[str, str]:
    page = (REPO / "docs/licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([\w.-]+) \| ([^|]*) \|", page)
    return {name: said.strip() for name, said in rows if name != "package"}


def test_every_package_of_the_lock_is_listed_with_a_known_licence():
    pages = listed()
    assert sorted(pages) == licences.locked(LOCK), "run `make licences`"
    assert len(pages) > 200
    unknown = [name for name, said in pages.items() if not said or said.lower() == licences.UNKNOWN]
    assert not unknown, "read their files and state the licence in tools/licences.py"


def test_the_list_says_what_the_installed_packages_say():
    wrong = {name: (said, licences.licence(name)) for name, said in listed().items() if said != licences.licence(name)}
    # a package that this machine does not have is stated by hand; everything else was read from its own metadata
    assert not wrong, "run `make licences`"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "BSD"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "Copyright (c) 2020 Somebody", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License": "BSD", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD"),
        ({"License": "UNKNOWN"}, licences.UNKNOWN),
        ({"License": "=====\nterms"}, licences.UNKNOWN),
        ({}, licences.UNKNOWN),
    ],
)
def test_how_metadata_are_read(monkeypatch, fields, said):
    about = Message()
    for name, value in fields.items():
        about[name] = value
    monkeypatch.setattr(licences, "metadata", lambda name: about)
    assert licences.licence("some-package") == said


def test_a_package_whose_licence_nobody_knows_fails_the_check(monkeypatch, capsys):
    monkeypatch.setattr(
        licences, "STATED", {name: said for name, said in licences.STATED.items() if name != "opensmile"}
    )
    monkeypatch.setattr(licences, "metadata", lambda name: Message())
    assert licences.main(["--check"]) == 1
    assert "numpy: its metadata name no licence" in capsys.readouterr().out
