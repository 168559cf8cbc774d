"""Compare two outlines of answers branch by branch. For worker processes only: leaves go to the algebra system."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import starmap

from r1ray.rewards.answers import leaves, ranges
from r1ray.rewards.answers.algebra import is_complex, parsed, proportional
from r1ray.rewards.answers.outline import Chain, Either, Group, Leaf, Node, SetTerm
from r1ray.rewards.answers.quantities import base_of, is_quantity, same_quantity

_MAX_PAIRED = 64
"""Items of an unordered list that are matched one by one."""


class Comparison:
    """Compares trees of one truth and one answer,
    whose letters are complex numbers if either text has the imaginary unit.
    """

    def __init__(self, truth: str, answer: str) -> None:
        self._real = not is_complex(truth, answer)

    def nodes(self, truth: Node, answer: Node) -> bool:
        """Whether two trees are the same answer."""
        truth, answer = _plain_form(truth), _plain_form(answer)
        if truth == answer:
            return True
        if isinstance(truth, Leaf) and isinstance(answer, Leaf):
            return self._leaves(truth, answer)
        if ranges.is_range(truth) or ranges.is_range(answer):
            return self._ranges(truth, answer)
        first, second = _equations(truth), _equations(answer)
        if first and second:
            return self._assignments(truth, answer)
        one, other = self._value(truth) if first else truth, self._value(answer) if second else answer
        if one is None or other is None:
            return False
        if first or second:
            return self.nodes(one, other)
        return self._lists(one, other)

    def _leaves(self, truth: Leaf, answer: Leaf) -> bool:
        one, other = leaves.with_both_signs(truth), leaves.with_both_signs(answer)
        if isinstance(one, Group) or isinstance(other, Group):
            return self.nodes(one, other)
        return leaves.equal(truth.text, answer.text, is_real=self._real)

    # Lists, tuples and sets

    def _lists(self, truth: Node, answer: Node) -> bool:
        one, other = _as_group(truth), _as_group(answer)
        if one is None or other is None:
            return False
        if not _comparable(one.brackets, other.brackets):
            return False
        items, others = self._items(one), self._items(other)
        ordered = one.brackets not in ("", "{}") or other.brackets not in ("", "{}")
        if ordered:
            return len(items) == len(others) and all(starmap(self.nodes, zip(items, others, strict=True)))
        return self._matched(items, others)

    def _items(self, group: Group) -> list[Node]:
        """The items, with both values of each that has a plus-minus sign."""
        found: list[Node] = []
        for item in group.items:
            both = leaves.with_both_signs(item) if isinstance(item, Leaf) else item
            found += both.items if isinstance(both, Group) and both is not item else (item,)
        return found

    def _matched(self, items: Sequence[Node], others: Sequence[Node]) -> bool:
        """Whether two unordered lists have the same items, each counted once."""
        ones, rest = self._distinct(items), self._distinct(others)
        if len(ones) != len(rest) or len(ones) > _MAX_PAIRED:
            return len(items) == len(others) and all(starmap(self.nodes, zip(items, others, strict=True)))
        for one in ones:
            place = next((k for k, other in enumerate(rest) if self.nodes(one, other)), None)
            if place is None:
                return False
            del rest[place]
        return True

    def _distinct(self, items: Sequence[Node]) -> list[Node]:
        found: list[Node] = []
        for item in items[: 2 * _MAX_PAIRED]:
            if item not in found and not (len(items) <= 8 and any(self._same_item(item, other) for other in found)):
                found.append(item)
        return found

    def _same_item(self, one: Node, other: Node) -> bool:
        return (
            isinstance(one, Leaf) and isinstance(other, Leaf) and leaves.equal(one.text, other.text, is_real=self._real)
        )

    # Equations

    def _assignments(self, truth: Node, answer: Node) -> bool:
        if isinstance(truth, Chain) and isinstance(answer, Chain):
            return self._equation(truth, answer)
        one, other = _members(truth), _members(answer)
        if len(one) == len(other) > 1 and all(_equations(item) for item in (*one, *other)):
            unknowns = {*_unknowns(truth), *_unknowns(answer)}
            if isinstance(truth, Either) != isinstance(answer, Either) and len(unknowns) > 1:
                return False  # x = 1 and y = 2, x = 1 or y = 2
            if self._matched(one, other):
                return True
        first, second = self._value(truth), self._value(answer)
        if first is None or second is None:
            return False
        return _unknowns(truth) == _unknowns(answer) and self.nodes(first, second)

    def _equation(self, truth: Chain, answer: Chain) -> bool:
        lefts = truth.operands[0], answer.operands[0]
        names = [_text(left) for left in lefts]
        if all(map(is_quantity, names)) and same_quantity(names[0], names[1]):
            return self.nodes(truth.operands[-1], answer.operands[-1])
        if len(truth.operands) == len(answer.operands) and all(
            starmap(self.nodes, zip(truth.operands, answer.operands, strict=True))
        ):
            return True
        sides = [self._difference(chain) for chain in (truth, answer)]
        return None not in sides and proportional(sides[0], sides[1]) is not None

    def _difference(self, chain: Chain) -> object | None:
        if len(chain.operands) != 2 or not all(isinstance(side, Leaf) for side in chain.operands):
            return None
        left, right = (parsed(_text(side), is_real=self._real) for side in chain.operands)
        try:
            return left - right if left is not None and right is not None else None
        except TypeError:  # of different kinds, as a matrix and a number
            return None

    def _value(self, node: Node) -> Node | None:
        """The value or values of equations: `5` of `x = 5` and of `2 + 3 = 5`, `(1, 2)` of `x = 1, y = 2`, and `1, 2`
        of `x = 1 or x = 2`. None if a left side is neither a quantity nor equal to the right side.
        """
        if isinstance(node, Chain):
            *lefts, value = node.operands
            fine = all(is_quantity(_text(left)) or self.nodes(value, left) for left in lefts)
            return value if fine else None
        if not isinstance(node, Group | Either):
            return node
        values = [self._value(item) if _equations(item) else item for item in node.items]
        kept = [value for value in values if value is not None]
        if len(kept) < len(values):
            return None
        names = {base_of(_text(item.operands[0])) for item in node.items if isinstance(item, Chain)}
        if isinstance(node, Group) and not node.brackets and len(names) == len(kept) > 1:
            return Group("()", tuple(kept))
        return Group("", _flat(kept))

    # Sets of numbers

    def _ranges(self, truth: Node, answer: Node) -> bool:
        named, other_named = ranges.letters(truth), ranges.letters(answer)
        if named and other_named and named != other_named:
            return False
        value: Callable[[str], object] = lambda text: parsed(text, is_real=self._real)  # noqa: E731
        one, other = ranges.set_of(truth, value), ranges.set_of(answer, value)
        if one is not None and other is not None:
            return ranges.same(one, other)
        if isinstance(truth, Chain) and isinstance(answer, Chain):
            return self._relations(truth, answer)
        if isinstance(truth, SetTerm) and isinstance(answer, SetTerm) and truth.operator == answer.operator:
            if truth.operator == "setminus":
                return len(truth.items) == len(answer.items) and all(
                    starmap(self.nodes, zip(truth.items, answer.items, strict=True))
                )
            return self._matched(truth.items, answer.items)
        if isinstance(truth, Either) and isinstance(answer, Either):
            return self._matched(truth.items, answer.items)
        if isinstance(truth, Group) and isinstance(answer, Group):
            return _comparable(truth.brackets, answer.brackets) and self._matched(truth.items, answer.items)
        return False

    def _relations(self, truth: Chain, answer: Chain) -> bool:
        """Whether two chains state the same, turned so that they ascend, or with a factor taken out."""
        one, other = ranges.ascending(truth), ranges.ascending(answer)
        if one.operators != other.operators:
            return False
        if len(one.operands) == len(other.operands) and all(
            starmap(self.nodes, zip(one.operands, other.operands, strict=True))
        ):
            return True
        sides = [self._difference(chain) for chain in (one, other)]
        if None in sides:
            return False
        factor = proportional(sides[0], sides[1])
        return factor is not None and bool(factor > 0 or one.operators == (r"\ne",))


def _plain_form(node: Node) -> Node:
    """S for x in S, and a list without what only says that its letters are integers."""
    if isinstance(node, Chain) and node.operators == (r"\in",):
        return node.operands[1]
    if isinstance(node, Group) and not node.brackets:
        kept = tuple(item for item in node.items if not _is_domain(item))
        if 0 < len(kept) < len(node.items):
            return kept[0] if len(kept) == 1 else Group("", kept, node.spoken)
    return node


def _is_domain(node: Node) -> bool:
    return (
        isinstance(node, Chain)
        and node.operators == (r"\in",)
        and re.fullmatch(r"\\mathbb\s*\{?[ZN]\}?|[ZN]", _text(node.operands[1])) is not None
    )


def _text(node: Node) -> str:
    if isinstance(node, Leaf):
        return node.text
    if isinstance(node, Group):
        return node.brackets[:1] + ",".join(map(_text, node.items)) + node.brackets[1:]
    return "?"


def _equations(node: Node) -> bool:
    """Whether the node is an equation, or a list that has one."""
    if isinstance(node, Chain):
        return node.is_equation
    if isinstance(node, Either) or (isinstance(node, Group) and node.brackets in ("", "()", "{}")):
        return any(_equations(item) for item in node.items)
    return False


def _members(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Group | Either) else (node,)


def _unknowns(node: Node) -> tuple[str, ...]:
    """The names on the left sides, each once and without its index, in order of the alphabet: x of x_1 = 2, x_2 = 3."""
    if isinstance(node, Chain):
        left = node.operands[0]
        names = left.items if isinstance(left, Group) else (left,)
        return tuple(sorted({base_of(_text(name)) for name in names}))
    if isinstance(node, Group | Either):
        return tuple(sorted({name for item in node.items for name in _unknowns(item)}))
    return ()


def _as_group(node: Node) -> Group | None:
    if isinstance(node, Group):
        return node
    if isinstance(node, Either):
        return Group("", _flat(node.items))
    return Group("", (node,)) if isinstance(node, Leaf) else None


def _flat(items: Sequence[Node]) -> tuple[Node, ...]:
    """The items, with those of lists without brackets in their place."""
    return tuple(
        part for item in items for part in (item.items if isinstance(item, Group) and not item.brackets else (item,))
    )


def _comparable(one: str, other: str) -> bool:
    """Whether brackets of these kinds may hold the same: a list without brackets is also a set or a tuple."""
    if one == other or "" in (one, other):
        return {one, other} not in ({"", "[)"}, {"", "(]"})
    return {one, other} == {"()", "<>"}
