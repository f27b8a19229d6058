"""What in a Python source could run what it was only meant to read: found in its syntax tree, behind any alias."""

from __future__ import annotations

import ast
from collections.abc import Iterator

#: Modules that make objects by running what a file says; ``pickletools``, which only lists it, is none of them.
MODULES = frozenset("pickle _pickle cPickle marshal shelve dill cloudpickle jsonpickle".split())
#: Functions → the rule that they break, whatever their arguments.
CALLS = {
    "eval": "eval",
    "exec": "eval",
    "builtins.eval": "eval",
    "builtins.exec": "eval",
    "pandas.eval": "eval",
    "joblib.load": "pickle",
    "joblib.dump": "pickle",
    "pandas.read_pickle": "pickle",
    "numpy.core.multiarray.fromstring": "pickle",
    "torch.save": "pickle",
    "torch.hub.load": "foreign code",
    "os.system": "shell",
    "os.popen": "shell",
    "subprocess.getoutput": "shell",
    "subprocess.getstatusoutput": "shell",
    "asyncio.create_subprocess_shell": "shell",
    "yaml.load": "yaml",
    "yaml.load_all": "yaml",
    "yaml.full_load": "yaml",
    "yaml.unsafe_load": "yaml",
    "tempfile.mktemp": "temporary name",
    "ssl._create_unverified_context": "unverified",
}
#: (Keyword, the literal that it has to be where it is given at all, the rule).
KEYWORDS = (
    ("allow_pickle", False, "pickle"),
    ("trust_remote_code", False, "foreign code"),
    ("shell", False, "shell"),
    ("weights_only", True, "pickle"),
    ("verify", True, "unverified"),
)


def broken_rules(source: str) -> Iterator[tuple[int, str, str]]:
    """(Line, rule, what) of everything that breaks one."""
    tree = ast.parse(source)
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from _modules(node, [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from _modules(node, [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Call):
            yield from _call(node, names)
        elif isinstance(node, ast.Dict):  # keywords that are passed on as **options
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in ("allow_pickle", "trust_remote_code"):
                    yield from _keyword(node, key.value, value)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local name → the dotted name that it stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _modules(node: ast.AST, imported: list[str]) -> Iterator[tuple[int, str, str]]:
    for name in imported:
        if name.split(".")[0] in MODULES or name in ("joblib.load", "joblib.dump"):
            yield node.lineno, "pickle", name
            return


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    called = _dotted(node.func, names)
    if called in CALLS:
        yield node.lineno, CALLS[called], called
    if called == "torch.load" and not any(keyword.arg == "weights_only" for keyword in node.keywords):
        yield node.lineno, "pickle", "torch.load without weights_only=True"
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method == "to_pickle" or (method == "eval" and (node.args or node.keywords)):  # model.eval() has none
        yield node.lineno, "pickle" if method == "to_pickle" else "eval", method
    for keyword in node.keywords:
        yield from _keyword(node, keyword.arg, keyword.value)


def _keyword(node: ast.AST, given: str | None, value: ast.expr) -> Iterator[tuple[int, str, str]]:
    for name, wanted, rule in KEYWORDS:
        if given == name and not (isinstance(value, ast.Constant) and value.value is wanted):
            yield node.lineno, rule, f"{name}={ast.unparse(value)}"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])
