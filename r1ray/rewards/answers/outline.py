"""The outer form of a mathematical answer, as a tree; what has no outer form is a leaf, for the algebra system.

    answer    = choice { ("or" | ";") choice }
    choice    = item { ("," | "and") item }
    item      = operand { relation operand }            relation: = < > \\le \\ge \\ne \\in \\equiv ...
    operand   = piece { ("\\cup" | "\\cap" | "\\setminus") piece }
    piece     = bracket [ answer ] bracket | leaf        brackets: ( [ \\{ \\langle, and intervals such as [a, b)

Separators count only outside brackets and environments. `read` takes cleaned text. Its time is linear for each depth of
brackets, and it looks MAX_DEPTH deep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1ray.rewards.answers.quantities import is_quantity

MAX_DEPTH = 6
MAX_ITEMS = 200
"""An answer of more parts stays one leaf."""

_OPEN_CLOSE = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[{}]|\\[lr]angle(?![A-Za-z])|[()\[\]{}]")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_BRACED_COMMA = re.compile(r"(?<=\d)\s?\{\s?,\s?\}\s?(?=\d{3}(?!\d))")
_WORD = r"(?:\\text\{\s*,?\s*(?:%s)\s*:?\s*\}|,?\s*(?<![A-Za-z\\])(?:%s)(?![A-Za-z])|%s)"
_OR = re.compile(
    r";|"
    + _WORD
    % ("or|oder|ou|或|或者|或いは|または|또는|или", "or|oder", r"或者?|または|또는|(?<!\w)или(?!\w)|\\vee(?![A-Za-z])")
)
_AND = re.compile(
    r",|" + _WORD % ("and|und|et|和|且|及|と|와|и", "and|und", r"和|且|(?<=\s)и(?=\s)|\\wedge(?![A-Za-z])|\\&")
)
_SETS = re.compile(r"\\(cup|cap|setminus)(?![A-Za-z])")
_RELATION = re.compile(r"<=|>=|!=|:?==?|<|>|\\(?:le|ge|ne|in|notin|equiv|approx|ni|subset|subseteq|cong)(?![A-Za-z])")
_OPERATORS = {
    "<=": "<=", r"\le": "<=", ">=": ">=", r"\ge": ">=", "!=": r"\ne", "==": "=", ":=": "=", ":==": "=", r"\approx": "=",
}  # fmt: skip
_COMMA = re.compile(",")


@dataclass(frozen=True, slots=True)
class Leaf:
    """Text without an outer form."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Items between brackets; `brackets` is "" for a list without any, else their pair such as "()",
    "[)", "{}" or "<>".
    """

    brackets: str
    items: tuple[Node, ...]
    spoken: bool = False  # joined by "and" or \\wedge, not by commas only


@dataclass(frozen=True, slots=True)
class Either:
    """Alternatives, joined by "or" or ";"."""

    items: tuple[Node, ...]
    spoken: bool  # by a word or \\vee, not by ";"


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands with the relations between them: a < x <= b, x = 3, x + y = z = 4."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]  # one less than operands

    @property
    def is_equation(self) -> bool:
        """Whether all relations are equals signs, or congruences."""
        return all(operator in ("=", r"\equiv") for operator in self.operators)


@dataclass(frozen=True, slots=True)
class SetTerm:
    """Sets joined by one kind of operator: "cup", "cap" or "setminus"."""

    operator: str
    items: tuple[Node, ...]


Node = Leaf | Group | Either | Chain | SetTerm


def read(text: str, depth: int = 0) -> Node:
    """The tree of a cleaned text."""
    text = text.strip()
    if depth >= MAX_DEPTH or not text:
        return Leaf(text)
    if depth == 0:
        text = _with_thousands_joined(text)
    parts, marks = _split(text, _OR)
    if len(parts) > 1:
        items = tuple(read(part, depth + 1) for part in parts if part)
        return items[0] if len(items) == 1 else Either(items, any(mark.strip() != ";" for mark in marks))
    parts, marks = _split(text, _AND)
    if len(parts) > 1:
        items = tuple(read(part, depth + 1) for part in parts if part)
        return items[0] if len(items) == 1 else Group("", items, any(mark != "," for mark in marks))
    return _item(text, depth)


def _item(text: str, depth: int) -> Node:
    builder = _set_builder(text)
    if builder is not None:
        return read(builder, depth + 1)
    parts, marks = _split(text, _RELATION)
    if len(parts) > 1 and parts[0] and parts[-1]:
        exact = 1 if is_quantity(parts[0]) else 0
        if r"\approx" in marks[exact:]:  # what follows is rounded
            kept = marks.index(r"\approx", exact)
            parts, marks = parts[: kept + 1], marks[:kept]
        if not marks:
            return read(parts[0], depth + 1)
        operands = tuple(read(part, depth + 1) for part in parts)
        return Chain(operands, tuple(_OPERATORS.get(mark, mark) for mark in marks))
    parts, marks = _split(text, _SETS)
    if len(parts) > 1 and all(parts):
        operators = {mark.strip("\\") for mark in marks}
        if len(operators) == 1:
            return SetTerm(operators.pop(), tuple(read(part, depth + 1) for part in parts))
        last = text.rindex(marks[-1])
        left, right = read(text[:last], depth + 1), read(text[last + len(marks[-1]) :], depth + 1)
        return SetTerm(marks[-1].strip("\\"), (left, right))
    return _grouped(text, depth) or Leaf(text)


def _grouped(text: str, depth: int) -> Node | None:
    found = re.match(r"\\\{|\\langle(?![A-Za-z])|[(\[{]", text)
    if not found:
        return None
    ends = re.search(r"(?:\\\}|\\rangle|[)\]}])$", text)
    if not ends or ends.start() < found.end() or not _encloses(text):
        return None
    inner = text[found.end() : ends.start()].strip()
    brackets = found.group().strip("\\")[0].replace("l", "<") + ends.group().strip("\\")[0].replace("r", ">")
    if brackets == "{}" and found.group() == "{":  # a group of LaTeX
        return read(inner, depth + 1) if inner else None
    parts, _ = _split(inner, _COMMA)
    semicolons, _ = _split(inner, re.compile(";"))
    if len(parts) == 1 and len(semicolons) > 1:
        parts = semicolons
    if len(parts) == 1 and brackets in ("()", "[]") and not _split(inner, _OR)[1] and not _split(inner, _SETS)[1]:
        node = read(inner, depth + 1)
        return node if not isinstance(node, Leaf) else Leaf(text if brackets == "[]" else inner)
    if brackets == "{}" and not inner:
        return Leaf(r"\emptyset")
    if len(parts) == 1 and brackets == "{}":
        node = read(inner, depth + 1)
        return node if isinstance(node, Chain) and not node.is_equation else Group("{}", (node,))
    if len(parts) == 1:
        return read(inner, depth + 1)
    return Group(brackets, tuple(read(part, depth + 1) for part in parts if part))


def _set_builder(text: str) -> str | None:
    r"""The condition of `\{x \mid x > 2\}` or `\{x \in \mathbb{R} : x > 2\}`."""
    found = re.fullmatch(
        r"\\\{\s*(?:[A-Za-z]|\\[a-z]+)\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|R)\s*)?(?:\\mid(?![A-Za-z])|\||:)\s*(.*)\\\}",
        text,
        re.DOTALL,
    )
    return found[1] if found and _encloses(text) else None


def _encloses(text: str) -> bool:
    """Whether the bracket at the front is closed by the last one."""
    depth = 0
    for found in _OPEN_CLOSE.finditer(text):
        depth += _step(found.group())
        if depth <= 0:
            return found.end() == len(text)
    return False


def _step(token: str) -> int:
    if token.startswith((r"\begin", r"\langle")):
        return 1
    if token.startswith((r"\end", r"\rangle")):
        return -1
    return 1 if token[-1] in "([{" else -1


def _split(text: str, mark: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """(parts, separators) of a text at the marks outside brackets;
    one part if brackets are unbalanced or parts too many.
    """
    if not mark.search(text):
        return [text], []
    inside: list[tuple[int, int]] = []
    depth = start = 0
    for found in _OPEN_CLOSE.finditer(text):
        step = _step(found.group())
        if step > 0:
            if depth == 0:
                start = found.start()
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0:
                inside.append((start, found.end()))
    if depth:
        return [text], []
    parts, marks = [], []
    at = k = 0
    for found in mark.finditer(text):
        while k < len(inside) and inside[k][1] <= found.start():
            k += 1
        within = k < len(inside) and inside[k][0] <= found.start()
        if within and not (found.group().startswith("\\text") and inside[k][1] == found.end()):
            continue
        parts.append(text[at : found.start()].strip())
        marks.append(found.group().strip())
        at = found.end()
    parts.append(text[at:].strip())
    return (parts, marks) if len(parts) <= MAX_ITEMS else ([text], [])


def _with_thousands_joined(text: str) -> str:
    """`1,200` becomes 1200 outside brackets; inside them commas separate,
    except in arguments as of \\frac{1,000}{3}.
    """
    text = _BRACED_COMMA.sub("", text)
    if "," not in text:
        return text
    pieces: list[str] = []
    lists: list[bool] = []  # of each open bracket: whether commas separate in it
    at = 0
    for found in _OPEN_CLOSE.finditer(text):
        before = text[at : found.start()]
        pieces.append(before if lists and lists[-1] else _THOUSANDS.sub(_joined, before))
        pieces.append(found.group())
        if _step(found.group()) > 0:
            argument = found.group() == "{" and re.search(
                r"(?:\\[A-Za-z]+|[}\]^_])\s?$", text[max(0, found.start() - 40) : found.start()]
            )
            lists.append(not argument or (bool(lists) and lists[-1]))
        elif lists:
            lists.pop()
        at = found.end()
    rest = text[at:]
    return "".join([*pieces, rest if lists and lists[-1] else _THOUSANDS.sub(_joined, rest)])


def _joined(found: re.Match[str]) -> str:
    return found.group().replace(",", "")
