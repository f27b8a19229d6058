"""Nothing that is read is run: no pickle, eval, shell or foreign code in the library, notebooks, benchmarks, tests."""

import re

import nbformat
import pytest
from code_scan import broken_rules
from conftest import REPO

#: (file, rule) → why it may. What is no longer there has to go from here too.
_SENT = "encoders go to worker processes, which pickles them: the test sends one itself"
_MADE = "makes a file that has to be refused"
ALLOWED = {
    ("tests/shown_pages.py", "eval"): "executes the cells of our own notebooks, as a kernel does",
    ("tests/howto.py", "eval"): "executes the blocks of our own how-to pages, as a kernel does",
    ("tests/test_fusion_registry.py", "eval"): "defines a class as a notebook's cell does, in no module",
    ("tests/hostile_arrays.py", "pickle"): _MADE,
    ("tests/test_weights.py", "pickle"): _MADE,
    ("tests/test_speech.py", "pickle"): f"{_SENT}; {_MADE}",
} | {(f"tests/test_{name}.py", "pickle"): _SENT for name in ("faces", "images", "language", "media", "model", "onnx")}

HARMFUL = {
    "import pickle": "pickle",
    "import _pickle as quick": "pickle",
    "from pickle import loads": "pickle",
    "import marshal, os": "pickle",
    "import shelve": "pickle",
    "from dill import load": "pickle",
    "import cloudpickle": "pickle",
    "import joblib\njoblib.load('x')": "pickle",
    "from joblib import dump": "pickle",
    "import joblib as j\nj.dump(1, 'x')": "pickle",
    "import torch\ntorch.load('x')": "pickle",
    "import torch\ntorch.load('x', weights_only=False)": "pickle",
    "import torch\ntorch.load('x', weights_only=sure)": "pickle",
    "from torch import load\nload('x')": "pickle",
    "import torch\ntorch.save({}, 'x')": "pickle",
    "import numpy as np\nnp.load('x', allow_pickle=True)": "pickle",
    "import numpy\nnumpy.load('x', allow_pickle=flag)": "pickle",
    "options = {'allow_pickle': True}": "pickle",
    "import pandas as pd\npd.read_pickle('x')": "pickle",
    "frame.to_pickle('x')": "pickle",
    "from_pretrained('x', trust_remote_code=True)": "foreign code",
    "options = {'trust_remote_code': yes}": "foreign code",
    "import torch\ntorch.hub.load('a', 'b')": "foreign code",
    "eval('1')": "eval",
    "def f():\n    exec(text)": "eval",
    "import builtins\nbuiltins.eval('1')": "eval",
    "frame.eval('a + b')": "eval",
    "import subprocess\nsubprocess.run('ls', shell=True)": "shell",
    "from subprocess import run as go\ngo('ls', shell=flag)": "shell",
    "import os\nos.system('ls')": "shell",
    "from os import popen\npopen('ls')": "shell",
    "import subprocess as s\ns.getoutput('ls')": "shell",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)": "yaml",
    "import yaml\nyaml.unsafe_load(text)": "yaml",
    "import requests\nrequests.get(url, verify=False)": "unverified",
    "from tempfile import mktemp\nmktemp()": "temporary name",
}
HARMLESS = [
    "model.eval()",
    "import pickletools",
    "import ast\nast.literal_eval('1')",
    "import numpy as np\nnp.load('x')\nnp.load('x', allow_pickle=False)",
    "import torch\ntorch.load('x', weights_only=True)",
    "from joblib import Parallel, delayed",
    "import subprocess\nsubprocess.run(['ls'], check=True)\nsubprocess.run(['ls'], shell=False)",
    "load(x, trust_remote_code=False, **{'trust_remote_code': False})",
    "import yaml\nyaml.safe_load(text)",
    "# pickle.load(file)\n'eval(1)'",
]


def sources():
    """(File, Python source) of everything that is ours; of a notebook, its code cells."""
    for folder in ("ecmf_lib", "benchmarks", "tools", "tests"):
        for path in sorted((REPO / folder).rglob("*.py")):
            yield path.relative_to(REPO).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((REPO / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield f"notebooks/{path.name}", "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def shell_lines(source: str) -> list[str]:
    """Lines of a notebook that go to a shell, or run another file."""
    return re.findall(r"(?m)^\s*(?:!|%%?(?:sx|system|bash|sh|script|run|load)\b).*", source)


def test_nothing_of_ours_breaks_a_rule_but_what_is_listed():
    found, where, seen = set(), [], 0
    for name, source in sources():
        seen += 1
        lines = re.sub(r"(?m)^\s*[%!].*$", "", source) if name.endswith(".ipynb") else source
        broken = list(broken_rules(lines))
        broken += [(0, "shell", line) for line in shell_lines(source) if name.endswith(".ipynb")]
        found |= {(name, rule) for _, rule, _ in broken}
        where += [f"{name}:{line}: {what} ({rule})" for line, rule, what in broken if (name, rule) not in ALLOWED]
    assert not where, "\n".join(where)
    assert {key for key in ALLOWED if (REPO / key[0]).is_file()} <= found, "listed, but no longer there"
    assert seen > 200 and any(name.endswith(".ipynb") for name, _ in sources())


@pytest.mark.parametrize("source", HARMFUL)
def test_the_scan_finds_each_planted_one(source):
    assert {rule for _, rule, _ in broken_rules(source)} == {HARMFUL[source]}


@pytest.mark.parametrize("source", HARMLESS)
def test_the_scan_leaves_the_rest_alone(source):
    assert list(broken_rules(source)) == []


def test_the_scan_of_notebooks_finds_shells():
    assert shell_lines("!ls\nx = 1\n  !pip install x\n%run other.py\n%%bash\n%matplotlib inline\na != b") == [
        "!ls",
        "  !pip install x",
        "%run other.py",
        "%%bash",
    ]


def test_the_page_about_security_names_tests_that_are_there():
    page = (REPO / "docs/security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+\.py)`", page))
    assert len(named) > 10 and not [name for name in named if not (REPO / "tests" / name).is_file()]
