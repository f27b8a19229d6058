"""Runs the code blocks of a how-to page in order, as its reader would: Python in one session, shell in the same folder.

A comment before a block says what to do with it: ``<!-- file: NAME -->`` writes it, ``<!-- not run: WHY -->`` leaves it
out, ``<!-- with: NAME -->`` has the test set the variable NAME in place of the page, ``<!-- fails: ERROR -->`` expects
that error. Blocks of other languages are only shown.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from ecmf_lib.run import app

_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
RUN = ("python", "sh")


@dataclass(frozen=True)
class Block:
    """One fenced block: language, text, and the comment before it as (word, rest)."""

    language: str
    text: str
    mark: str = ""
    said: str = ""
    line: int = 0


@dataclass
class Ran:
    """What came of a page: names of its session, what its commands said, and what was not run and why."""

    names: dict = field(default_factory=lambda: {"__name__": "howto"})
    said: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for match in _BLOCK.finditer(page):
        mark, _, said = (match["mark"] or "").partition(": ")
        line = page.count("\n", 0, match.start("text")) + 1
        found.append(Block(match["language"], match["text"], mark, said, line))
    return found


def run_page(path: Path, folder: Path, given: Mapping[str, object] | None = None) -> Ran:
    """Run a page in `folder`, which has to be the current one; AssertionError names the page's line."""
    ran = Ran()
    for block in blocks(path.read_text(encoding="utf-8")):
        where = f"{path.name}, line {block.line}"
        if block.mark == "not run":
            ran.skipped.append(block.said)
        elif block.mark == "file":
            target = folder / block.said
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            _python(block, where, ran, given or {})
        elif block.language == "sh":
            _shell(block, where, ran)
    return ran


def _python(block: Block, where: str, ran: Ran, given: Mapping[str, object]) -> None:
    text = block.text
    if block.mark == "with":
        text = re.sub(rf"^({block.said} = ).*$", lambda found: found[1] + repr(given[block.said]), text, flags=re.M)
        assert text != block.text, f"{where}: no line sets {block.said}"
    # line numbers of a traceback are those of the page
    code = compile("\n" * (block.line - 1) + text, where.partition(",")[0], "exec")
    if block.mark != "fails":
        exec(code, ran.names)
        return
    try:
        exec(code, ran.names)
    except Exception as error:
        assert type(error).__name__ == block.said, f"{where}: {type(error).__name__}: {error}"
        ran.said.append(str(error))
    else:
        raise AssertionError(f"{where}: expected {block.said}")


def _shell(block: Block, where: str, ran: Ran) -> None:
    """Lines of the `ecmf` command, in this process: a new one takes seconds to import what is here already."""
    for line in filter(None, (line.partition(" #")[0].strip() for line in block.text.splitlines())):
        command, *words = shlex.split(line)
        assert command == "ecmf", f"{where}: only ecmf is run; mark the block as not run: {line}"
        sys.stdout.flush()
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{where}: {line}\n{result.output}\n{result.exception!r}"
        ran.said.append(result.output)
