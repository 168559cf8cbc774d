"""Names and recursion limit that a program may rely on if its tests call functions, as on LeetCode.

LeetCode's Python template imports these for the program, and so do the harnesses of APPS and
LiveCodeBench. Runs inside the sandbox on a bare interpreter: standard library only.
"""

from __future__ import annotations

import bisect
import collections
import copy
import functools
import heapq
import itertools
import math
import operator
import random
import re
import resource
import string
import sys
import typing
from types import ModuleType
from typing import Any

_RECURSION_LIMIT = 50_000  # LiveCodeBench's
_STACK_BYTES = 120 << 20  # the kernel keeps at least 128 MiB of address space free below the stack
_MODULES = (bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys, typing)
_STAR_IMPORTS = (typing, collections, heapq, bisect, itertools, functools, math)
_FROM_MODULES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (copy, ("deepcopy",)),
    (operator, ("itemgetter", "attrgetter", "mul", "add", "xor")),
    (random, ("randint", "choice", "shuffle")),
    (string, ("ascii_lowercase", "ascii_uppercase", "ascii_letters", "digits", "punctuation")),
)


class ListNode:
    """LeetCode's node of a linked list."""

    def __init__(self, val: Any = 0, next: Any = None) -> None:
        self.val = val
        self.next = next


class TreeNode:
    """LeetCode's node of a binary tree."""

    def __init__(self, val: Any = 0, left: Any = None, right: Any = None) -> None:
        self.val = val
        self.left = left
        self.right = right


def names() -> dict[str, Any]:
    """Name -> object. A builtin keeps its meaning: `pow` is not that of math."""
    found: dict[str, Any] = {"ListNode": ListNode, "TreeNode": TreeNode}
    for module in _STAR_IMPORTS:
        public = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        found |= {name: getattr(module, name) for name in public}
    for module, chosen in _FROM_MODULES:
        found |= {name: getattr(module, name) for name in chosen}
    return {**found, **{module.__name__: module for module in _MODULES}}


def raise_recursion_limit() -> None:
    """Allow deep recursion, and the stack that recursion through C code needs (`sorted`, `lru_cache`)."""
    sys.setrecursionlimit(_RECURSION_LIMIT)
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard == resource.RLIM_INFINITY or hard >= _STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, hard))
