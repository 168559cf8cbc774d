"""Sets of real numbers: intervals, inequalities in one letter, their unions and intersections, as sympy sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sympy import Complement, EmptySet, Expr, FiniteSet, Intersection, Interval, S, Set, Union, oo

from r1ray.rewards.answers.algebra import alike
from r1ray.rewards.answers.outline import Chain, Either, Group, Leaf, Node, SetTerm

Value = Callable[[str], Any]
"""From the text of a leaf to its sympy object, None for none."""

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ORDER = frozenset(("<", "<=", ">", ">=", r"\ne"))
_MEMBER = frozenset((r"\in", r"\notin"))


def is_range(node: Node) -> bool:
    """Whether a tree can only be a set of numbers, unlike (1, 2), which may be a pair, and lists of values."""
    if isinstance(node, Chain):
        return not node.is_equation and any(operator in _ORDER | _MEMBER for operator in node.operators)
    if isinstance(node, SetTerm):
        return True
    if isinstance(node, Either):
        return any(map(is_range, node.items))
    if isinstance(node, Group):
        return node.brackets == "" and any(map(is_range, node.items))
    return node.text.replace(" ", "") in (r"\mathbb{R}", r"\mathbbR", r"\emptyset")


def set_of(node: Node, value: Value) -> Set | None:
    """The set; None if it is none that can be computed, as with letters for ends."""
    found = _set_of(node, value)
    return found if isinstance(found, Set) else None


def same(one: Set, other: Set) -> bool:
    """Whether two sets are equal; an end that is written as a decimal may be rounded."""
    if one == other or one.symmetric_difference(other) == EmptySet:
        return True
    if EmptySet in (one, other):
        return False
    first, second = _pieces(one), _pieces(other)
    return len(first) == len(second) and all(map(_same_piece, first, second))


def ascending(chain: Chain) -> Chain:
    """The chain turned so that its relations are < and <=."""
    if all(operator in (">", ">=") for operator in chain.operators):
        return replace(
            chain,
            operands=chain.operands[::-1],
            operators=tuple(_TURNED[operator] for operator in chain.operators[::-1]),
        )
    return chain


def _set_of(node: Node, value: Value) -> Set | None:
    if isinstance(node, Chain):
        return _of_chain(node, value)
    if isinstance(node, SetTerm):
        parts = [_set_of(item, value) for item in node.items]
        if any(part is None for part in parts):
            return None
        if node.operator == "setminus":
            return Complement(parts[0], Union(*parts[1:]))
        return Union(*parts) if node.operator == "cup" else Intersection(*parts)
    if isinstance(node, Either) or (isinstance(node, Group) and node.brackets == ""):
        return _of_list(node, value)
    if isinstance(node, Group):
        return _of_brackets(node, value)
    found = value(node.text)
    return found if isinstance(found, Set) else None


def _of_list(node: Either | Group, value: Value) -> Set | None:
    """Alternatives are a union. What commas separate holds together, unless nothing would be left."""
    if len(letters(node)) > 1:
        return None
    parts = [_set_of(item, value) for item in node.items]
    if any(part is None for part in parts):
        return None
    if isinstance(node, Either):
        return Union(*parts)
    both = Intersection(*parts)
    return Union(*parts) if both == EmptySet and not node.spoken else both


def letters(node: Node) -> set[str]:
    """The letters that inequalities are about."""
    if isinstance(node, Chain):
        names = {operand.text for operand in node.operands if isinstance(operand, Leaf)}
        return {name for name in names if name.strip("\\").isalpha()} - {r"\infty", r"\pi", "e"}
    if isinstance(node, Either | Group | SetTerm):
        return set().union(*map(letters, node.items))
    return set()


def _of_chain(chain: Chain, value: Value) -> Set | None:
    if len(chain.operators) == 1 and chain.operators[0] in _MEMBER:
        found = _set_of(chain.operands[1], value)
        if found is None or chain.operators[0] == r"\in":
            return found
        return Complement(S.Reals, found)
    if not all(isinstance(operand, Leaf) for operand in chain.operands):
        return None
    terms = [value(operand.text) for operand in chain.operands if isinstance(operand, Leaf)]
    if not all(isinstance(term, Expr) for term in terms):
        return None
    letters = [k for k, term in enumerate(terms) if term.is_Symbol]
    if len(letters) != 1 or any(term.free_symbols for k, term in enumerate(terms) if k != letters[0]):
        return None
    parts = []
    for k, operator in enumerate(chain.operators):
        if letters[0] not in (k, k + 1):
            return None
        left_of = letters[0] == k
        parts.append(_half(operator if left_of else _TURNED.get(operator, operator), terms[k + 1 if left_of else k]))
    return None if any(part is None for part in parts) else Intersection(*parts)


def _half(operator: str, end: Any) -> Set | None:
    """The numbers x with `x operator end`."""
    if not end.doit().is_extended_real:
        return None
    match operator:
        case "<":
            return Interval.open(-oo, end)
        case "<=":
            return Interval(-oo, end)
        case ">":
            return Interval.open(end, oo)
        case ">=":
            return Interval(end, oo)
        case "=":
            return FiniteSet(end)
        case r"\ne":
            return Complement(S.Reals, FiniteSet(end))
    return None


def _is_interval(node: Node) -> bool:
    return isinstance(node, Group) and len(node.items) == 2 and node.brackets in ("()", "[]", "[)", "(]")


def _of_brackets(group: Group, value: Value) -> Set | None:
    if not all(isinstance(item, Leaf) for item in group.items):
        return None
    ends = [value(item.text) for item in group.items if isinstance(item, Leaf)]
    if not all(isinstance(end, Expr) and not end.free_symbols and end.doit().is_extended_real for end in ends):
        return None
    if group.brackets == "{}":
        return FiniteSet(*ends)
    if not _is_interval(group):
        return None
    found = Interval(*ends, left_open=group.brackets[0] == "(", right_open=group.brackets[1] == ")")
    return None if found == EmptySet else found  # (2, -5) is a pair


def _pieces(found: Set) -> list[Set]:
    parts = list(found.args) if isinstance(found, Union) else [found]
    single: list[Set] = []
    for part in parts:
        single += [FiniteSet(point) for point in part] if isinstance(part, FiniteSet) else [part]
    return sorted(single, key=_start)


def _start(part: Set) -> float:
    return float(part.inf.evalf()) if part.inf.is_finite else float("-inf" if part.inf == -oo else "inf")


def _same_piece(one: Set, other: Set) -> bool:
    if isinstance(one, FiniteSet) and isinstance(other, FiniteSet):
        return alike(one.inf, other.inf)
    if not (isinstance(one, Interval) and isinstance(other, Interval)):
        return False
    return (
        bool(one.left_open == other.left_open and one.right_open == other.right_open)
        and alike(one.start, other.start)
        and alike(one.end, other.end)
    )
