"""Names that the source of tests uses: which of them the program must define, and which the judge owns.

Runs inside the sandbox on a bare interpreter: standard library only.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Collection, Sequence

BUILTINS = frozenset(dir(builtins))


def used_names(sources: Sequence[str]) -> set[str]:
    """Every name that the sources mention."""
    return {n.id for s in sources for n in ast.walk(ast.parse(s)) if isinstance(n, ast.Name)}


def split_setup(setup: str) -> tuple[ast.Module, ast.Module, set[str]]:
    """Split the set-up code into what runs before the program is loaded, and what runs after it.

    Everything from the first statement on that uses a name which neither the set-up nor Python
    defines has to wait: the name is probably the program's. Returns the two parts and those names.

    Example: `import math; head = Node(3)` is split into `import math`, `head = Node(3)` and
    {"Node"}.
    """
    body = ast.parse(setup).body
    defined = {s.get_name() for s in symtable.symtable(setup, "<setup>", "exec").get_symbols() if _binds(s)}
    missing = [_global_names(statement) - defined - BUILTINS for statement in body]
    first = next((i for i, names in enumerate(missing) if names), len(body))
    early, late = ast.Module(body[:first], []), ast.Module(body[first:], [])
    return early, late, set().union(*missing[first:])


def _global_names(statement: ast.stmt) -> set[str]:
    """The names that a statement looks up in the module's namespace, those in the bodies of functions included."""
    tables = [symtable.symtable(ast.unparse(statement), "<setup>", "exec")]
    found: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        found |= {
            s.get_name() for s in table.get_symbols() if s.is_referenced() and (not _binds(s) if top else s.is_global())
        }
    return found


def _binds(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def functions_under_test(asserts: Sequence[str], names: Collection[str], defined: Collection[str]) -> set[str]:
    """The names that the program itself has to define, although Python or the set-up (`defined`) may define them too.

    These are the recorded `names`, and a function of the standard library that every assert calls:
    `assert sum(10, 15) == 6` alone tests a `sum` of the program. If the asserts use another name
    that only the program can define, as in `assert sorted(f(2)) == [2]`, they test that one, and
    `sorted` is the judge's.
    """
    library = BUILTINS | sys.stdlib_module_names
    calls = {_outermost_call(source) for source in asserts}
    if names or len(calls) != 1:
        return set(names)
    (called,) = calls
    if called is None or called not in library or called in defined:
        return set()
    return {called} if used_names(asserts) <= library | set(defined) else set()


def _outermost_call(source: str) -> str | None:
    """The function that an assert calls first: g of `assert not g(h(1)) == 2`. None if that is not a plain call."""
    statement = ast.parse(source).body[:1]
    inner: ast.AST = statement[0].test if statement and isinstance(statement[0], ast.Assert) else ast.Pass()
    while True:
        if isinstance(inner, ast.UnaryOp):
            inner = inner.operand
        elif isinstance(inner, ast.Compare):
            inner = inner.left
        else:
            break
    return inner.func.id if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) else None
