"""The layout of the code: which package may import which, and that nothing stands loose."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

LAYERS = (
    *("errors", "types", "codec", "util", "telemetry", "config", "ledger"),
    *("transport", "tasks", "data", "rewards", "run", "models"),
    *("preflight", "planning", "serving", "control", "sampling", "evaluation", "curation", "recipe", "report"),
    *("actors", "learner", "launch", "cli"),
)
"""From the lowest to the highest. A layer imports only lower ones."""
LOOSE = {"__init__", "__main__", "codec", "errors", "types"}


def layer_of(module: str) -> str | None:
    """The layer that a module belongs to, or None if it is not the project's."""
    top, *rest = module.split(".")
    if top == "r1ray":
        return rest[0] if rest else "types"  # r1ray itself holds the version
    return top if top in ("actors", "learner") else None


@functools.cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The imports and functions of a file, those inside functions included."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


@functools.cache
def imports() -> dict[tuple[str, str], set[str]]:
    """(importing layer, imported layer) -> places, over every import statement, those inside functions included."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for top in ("r1ray", "actors", "learner"):
        for path in (ROOT / top).rglob("*.py"):
            here = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for node in statements(path):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    if isinstance(node, ast.ImportFrom) and name == "r1ray":
                        name = f"r1ray.{node.names[0].name}" if (ROOT / "r1ray" / node.names[0].name).is_dir() else name
                    there = layer_of(name)
                    if here and there and here not in (there, "__main__", "__init__"):
                        found[here, there].add(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_a_package_imports_only_lower_ones() -> None:
    upward = {
        f"{place}: {here} imports {there}"
        for (here, there), places in imports().items()
        if LAYERS.index(here) <= LAYERS.index(there)
        for place in places
    }
    assert upward == set()


def test_every_package_has_a_layer() -> None:
    packages = {p.name for p in (ROOT / "r1ray").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert packages | (LOOSE - {"__init__", "__main__"}) | {"actors", "learner"} == set(LAYERS)


def test_actors_and_learner_do_not_know_each_other() -> None:
    known = imports()
    assert ("actors", "learner") not in known
    assert ("learner", "actors") not in known


def test_config_stands_on_the_contracts_alone() -> None:
    assert {there for here, there in imports() if here == "config"} <= {"errors", "types", "util"}


def test_no_module_is_loose_in_r1ray() -> None:
    assert {p.stem for p in (ROOT / "r1ray").glob("*.py")} == LOOSE


def test_files_and_functions_stay_short() -> None:
    long = []
    for top in ("r1ray", "actors", "learner", "benchmarks", "examples"):
        for path in (ROOT / top).rglob("*.py"):
            if (lines := path.read_text(encoding="utf-8").count("\n")) > 300:
                long.append(f"{path.relative_to(ROOT)}: {lines} lines")
            for node in statements(path):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    if lines > 60:
                        long.append(f"{path.relative_to(ROOT)}: {node.name}, {lines} lines")
    assert long == []
