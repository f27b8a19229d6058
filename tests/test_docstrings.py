"""Every public module, class and function of the library says what it does: `make docs` makes the API pages of it."""

import ast
from collections.abc import Iterator

import pytest
from conftest import REPO

MODULES = sorted((REPO / "ecmf_lib").rglob("*.py"))
#: Public, and lacking one: what is mended goes from here.
LACKING = {"samples.inner_folds"}


def parts(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """Public classes, functions and methods below a module or class, with their dotted names."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{name}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from parts(child, f"{name}.{child.name}")


def test_all_that_is_public_has_a_docstring():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    found = [at for path, tree in trees.items() for at in parts(tree, path.stem)]
    assert len(found) > 800
    assert not [path.name for path, tree in trees.items() if not ast.get_docstring(tree)]
    told = {name.rpartition(".")[2] for name, node in found if name.count(".") == 2 and ast.get_docstring(node)}
    without = {name for name, node in found if not ast.get_docstring(node)}
    # a method that stands in for one that is described elsewhere (Encoder.dim, say) has that one's docstring
    without = {name for name in without if not (name.count(".") == 2 and name.rpartition(".")[2] in told)}
    assert without - LACKING == set()


def test_the_walk_finds_what_lacks_one():
    tree = ast.parse("class A:\n    def b(self): pass\n    def _c(self): pass\ndef d(): 'said'\n")
    assert [name for name, node in parts(tree, "m") if not ast.get_docstring(node)] == ["m.A", "m.A.b"]


@pytest.mark.parametrize("name", ["docs:", "docs/api"])
def test_make_docs_is_there_and_its_pages_are_not_tracked(name):
    assert name in (REPO / "Makefile").read_text(encoding="utf-8")
    assert "docs/api/" in (REPO / ".gitignore").read_text(encoding="utf-8").splitlines()
