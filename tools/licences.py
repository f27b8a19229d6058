"""Write ``docs/licences.md``: the licence of every package of ``requirements.lock``. No network is used.

    python tools/licences.py          write it
    python tools/licences.py --check  say what is missing or out of date, and fail then

What a package's own metadata says comes first. Where that is nothing, misleading or not to be had on this machine (a
package for another platform), the licence is stated below by hand, from the package's own files.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, distributions
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "licences.md"
UNKNOWN = "unknown"

#: Read in the package's own licence or description, where its metadata does not say it, or says it of a part.
STATED = {
    "atheris": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # only names the nvidia-… packages
    "insightface": "MIT",  # the code; models have licences of their own, see `ecmf doctor`
    "matplotlib": "Matplotlib licence (as PSF-2.0)",
    "nvidia-nvtx": "Apache-2.0",
    "opensmile": "audEERING research licence (non-commercial), wrapper MIT",
    "torchvision": "BSD-3-Clause",
}
#: Not installed on Linux with the Python that the project is developed on.
ELSEWHERE = {
    "aiohappyeyeballs": "PSF-2.0",
    "aiohttp": "Apache-2.0 AND MIT",
    "aiosignal": "Apache-2.0",
    "appnope": "BSD-2-Clause",
    "colorama": "BSD-3-Clause",
    "frozenlist": "Apache-2.0",
    "httpx2-jsfetch": "BSD-3-Clause",
    "multidict": "Apache-2.0",
    "propcache": "Apache-2.0",
    "pywinpty": "MIT",
    "yarl": "Apache-2.0",
}
#: Libraries inside a wheel whose licence asks more of who passes them on than the package's own.
CARRIES = {
    "av": "FFmpeg with x264 and x265 (GPL-2.0-or-later), LAME (LGPL)",
    "opencv-python": "FFmpeg and Qt (LGPL)",
    "soundfile": "libsndfile, LAME, mpg123 (LGPL)",
}
#: Ways in which metadata name one licence.
SPELT = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "psfl": "PSF-2.0",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
}
#: An SPDX expression: names joined by AND, OR.
_NAME = re.compile(r"[A-Za-z][\w.+-]*( (AND|OR) [A-Za-z0-9][\w.+-]*)*")
_HEAD = """# Licences of the dependencies

Every package of `requirements.lock`, written by `make licences` from the packages' own metadata, without the network;
`tests/test_licences.py` holds it to the lock. ECMF itself is MIT. *Direct* packages are those that `pyproject.toml`
names, the others come with them. None of them is passed on with this repository: whoever builds an image or an
installer of them has to follow the licences below, above all

- **opensmile** (the profile `light`'s audio stream, and the cues): for research and other non-commercial use;
- **av**, whose wheel carries an FFmpeg with x264 and x265: GPL for who passes the wheel on;
- the **NVIDIA** packages, which only come on Linux, and are not free software.

Model weights and corpora have licences of their own: `ecmf doctor` and every report state them.

| package | licence | | carries |
|---|---|---|---|
"""


def locked(lock: str) -> list[str]:
    """Names of the packages of a lock, as it spells them, each once."""
    return sorted({found[1] for found in re.finditer(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)==", lock)})


def plain(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def metadata(name: str) -> PackageMetadata:
    """What a package of this environment says of itself; PackageNotFoundError if there is none.

    Looked for where packages are installed, not along ``sys.path``: importing Ray adds the packages that it carries.
    """
    places = sysconfig.get_paths()
    for found in distributions(name=name, path=list(dict.fromkeys([places["purelib"], places["platlib"]]))):
        return found.metadata
    raise PackageNotFoundError(name)


def licence(name: str) -> str:
    """The licence of a package; :data:`UNKNOWN` if nothing here says it."""
    if plain(name) in STATED:
        return STATED[plain(name)]
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return ELSEWHERE.get(plain(name), UNKNOWN)
    classified = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License :: ")
    ]
    # the field "License" may hold a whole text: its first line is the name, or something else that says nothing
    first = _spdx(next(iter((about.get("License") or "").strip().splitlines()), ""))
    said = [about.get("License-Expression"), first if _NAME.fullmatch(first) else "", *map(_spdx, classified)]
    exact = [name for name in said if name and name not in ("BSD", "UNKNOWN")]
    return next(iter([*exact, *(name for name in said if name == "BSD"), UNKNOWN]))


def _spdx(said: str) -> str:
    return SPELT.get(re.sub(r"\s+", " ", said).strip().lower(), said.strip())


def page(lock: str, direct: set[str]) -> str:
    """The whole page."""
    rows = []
    for name in locked(lock):
        kind = "direct" if plain(name) in direct else ""
        rows.append(f"| {name} | {licence(name)} | {kind} | {CARRIES.get(plain(name), '')} |")
    return _HEAD + "\n".join(rows) + "\n"


def direct_packages() -> set[str]:
    """Names that ``pyproject.toml`` asks for, optional ones included."""
    about = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*about["dependencies"], *(line for lines in about["optional-dependencies"].values() for line in lines)]
    return {plain(re.match(r"[\w.-]+", line)[0]) for line in wanted}


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    lock = (REPO / "requirements.lock").read_text(encoding="utf-8")
    made = page(lock, direct_packages())
    unknown = [name for name in locked(lock) if licence(name) == UNKNOWN]
    for name in unknown:
        print(f"{name}: its metadata name no licence; read its files and add it to STATED or ELSEWHERE in {__file__}")
    if "--check" in arguments:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made
        print("" if current else "docs/licences.md is not what the lock and the packages say: run `make licences`")
        return int(bool(unknown) or not current)
    PAGE.write_text(made, encoding="utf-8")
    print(f"docs/licences.md: {len(locked(lock))} packages")
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
