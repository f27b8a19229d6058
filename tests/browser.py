"""Pages opened from disk in headless Chromium, where the machine has one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser's program; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium): pages are not opened in a browser")
    return found


def opened(page: Path, scratch: Path) -> str:
    """The page as the browser has it two seconds (of the page's own time) after it was opened, as HTML."""
    command = [chromium(), *FLAGS, f"--user-data-dir={scratch}", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, timeout=120)
    dom = done.stdout.decode("utf-8", "replace")
    assert "<main>" in dom or "<body>" in dom, f"{page.name} was not opened: {done.stderr[-500:]!r}"
    return dom
