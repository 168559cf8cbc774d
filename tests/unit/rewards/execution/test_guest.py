"""The judge of function tests and the program that it judges: what crosses between them, and who is at fault."""

import signal

import pytest

from r1ray.errors import DataError
from r1ray.rewards.execution import programs
from r1ray.rewards.execution.crossing import decode
from r1ray.rewards.execution.running import Limits, Outcome
from tests.unit.reward_support import alarm_given_back, judged


def test_judge_calls_candidate():
    code = """
from dataclasses import dataclass
@dataclass
class P:
    a: int
def f(p): return p.a
def g(n): yield from range(n)
def h(x): raise ValueError("no")
"""
    asserts = [
        "assert f(P(3)) == 3",
        "assert P(3).a == 3 and list(g(3)) == [0, 1, 2]",
        "assert f(P(3)) == 4",
        "try:\n    h(1)\nexcept ValueError:\n    pass",
        "assert math.floor(f(P(2.5))) == 2",
        "f(1)",
        "assert nothing(1)",
    ]
    reports = judged(code, asserts=asserts)
    assert reports == [(0, None), (1, None), (2, "wrong"), (3, None), (4, None), (5, "crash"), (6, "crash")]


def test_helpers_and_builtins_of_tests_belong_to_the_judge():
    """Neither builtins nor helpers of the set-up come from the program under test."""
    code = "def helper(x): return 4\ndef abs(x): return 0\ndef sorted(x): return [1]\ndef f(x): return 3"
    setup = "def helper(x):\n    return x\ndef f(x):\n    '''stub'''"
    asserts = ["assert helper(f(1)) == 4", "assert abs(f(1) - 9) < 1", "assert sorted([2]) == [1]", "assert f(1) == 3"]
    assert [why for _, why in judged(code, setup=setup, asserts=asserts, names=["f"])] == [
        "wrong",
        "wrong",
        "wrong",
        None,
    ]
    assert judged("x = 1", setup=setup, asserts=["assert f(1) is None"], names=["f"]) == [(0, "crash")]


def test_method_of_a_solution_class():
    calls = [{"function": "f", "args": [2], "expected": 4}, {"function": "f", "args": [2], "expected": 5}]
    assert judged("class Solution:\n    def f(self, x): return x * x", calls=calls) == [(0, None), (1, "wrong")]


def test_stop_iteration_does_not_end_loops_of_tests():
    loops = ["assert all(map(lambda p: f(p) == p + 1, [1, 2]))", "for a, b in zip(map(f, [1]), [2]): assert a == b"]
    for name in ("StopIteration", "StopAsyncIteration", "GeneratorExit"):
        assert judged(f"def f(x): raise {name}", asserts=loops) == [(0, "crash"), (1, "crash")]


@pytest.mark.parametrize("guard", ["except Exception", "except", "except BaseException"])
def test_tests_cannot_catch_the_end_of_the_program(guard):
    asserts = [f"try:\n    f(1)\n{guard}:\n    pass"]
    assert judged("def f(x): leave()", asserts=asserts) == [(0, "crash")]
    late = "def f(x):\n    while not closed.is_set(): pass"
    assert judged(late, asserts=asserts, test_s=0.05) == [(0, "timeout")]


def test_endless_tests_time_out():
    code = "def f(x):\n    while x == 0 and not closed.is_set(): pass\n    return x"
    assert judged(code, asserts=["assert f(1) == 1", "assert f(0) == 0"], test_s=1.0) == [(0, None), (1, "timeout")]
    assert judged("def f(x): return 0", asserts=["while not f(1): pass"], test_s=0.05) == [(0, "timeout")]
    assert judged("while not closed.is_set(): pass", asserts=["assert f(1)"], test_s=0.05) == [(0, "timeout")]
    calls = [{"function": "f", "args": [0], "expected": 0}]
    assert judged(code, calls=calls, test_s=0.05) == [(0, "timeout")]


def test_judge_in_a_test_restores_the_alarm():
    with alarm_given_back():
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 3000.0)
        assert judged("def f(x): return 1", asserts=["assert f(1) == 1"]) == [(0, None)]
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        assert 2900.0 < signal.getitimer(signal.ITIMER_REAL)[0] < 3000.0


@pytest.mark.parametrize(
    "code",
    [
        "class L(list):\n    def __iter__(self): raise RuntimeError\nf = L()",
        "class L(dict):\n    def items(self): raise RuntimeError\nf = L()",
        "globals()[5] = [1]\nf = None",
        "class E(Exception):\n    def __str__(self): raise ValueError\ndef f(x): raise E",
        "class T:\n    def __str__(self): raise ValueError\ndef f(x): return T()",
        "import numbers\nraise StopIteration",
    ],
)
def test_hostile_objects_are_the_programs_fault(code):
    assert judged(code, asserts=["assert f(1) == 2, f(1)"]) in ([(0, "wrong")], [(0, "crash")])


def test_program_defines_a_builtin_that_every_assert_calls():
    adds = "def sum(a, b): return a + b"
    assert judged(adds, asserts=["assert sum(10, 15) == 25", "assert sum(1, 2) == 3"]) == [(0, None), (1, None)]
    assert judged("def bisect(x): return x", asserts=["assert bisect(1) == 1"]) == [(0, None)]
    assert judged("x = 1", asserts=["assert max(1, 2) == 2"]) == [(0, "crash")]
    every = "def set(x): return 1\ndef f(x): return 2"
    assert judged(every, asserts=["assert set(f(1)) == set([1])", "assert set(f(2)) == set([2])"])[0][1] == "crash"


def test_library_values_compare_by_value():
    code = """
from collections import deque
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
def f(x): return [Fraction(1, 2), Decimal("0.5"), deque([1]), range(3), date(2020, 1, 2), timedelta(1)][x]
def g(): return datetime(2020, 1, 2, tzinfo=timezone.utc)
"""
    rights = ["f(0) == 0.5", "f(1) == 0.5", "f(2) == collections.deque([1])", "f(3) == range(3)"]
    rights += ["f(4) == datetime.date(2020, 1, 2)", "f(5) == datetime.timedelta(1)", "g().year == 2020"]
    assert [why for _, why in judged(code, asserts=[f"assert {r}" for r in rights])] == [None] * len(rights)
    assert judged(code, asserts=["assert f(0) == 0.25"]) == [(0, "wrong")]
    calls = [{"function": "f", "args": [0], "expected": 0.5}, {"function": "f", "args": [1], "expected": 0}]
    assert judged(code, calls=calls) == [(0, None), (1, "wrong")]
    sly = "from fractions import Fraction\nclass T(Fraction):\n    def __eq__(self, o): return True\ndef f(x): return T(1)"
    assert judged(sly, asserts=["assert f(1) == 0.5"]) == [(0, "wrong")]


def test_unsendable_argument_is_the_tests_fault():
    assert judged("def f(x): return 1", asserts=["assert f(lambda: 0) == 1"]) == [(0, "unfit")]
    code = "class T:\n    def union(self, x): return x\ndef f(x): return T()"
    assert judged(code, asserts=["assert f(1).union(lambda: 0)"]) == [(0, "crash")]


def test_tests_that_never_become_ready(monkeypatch):
    ended = Outcome(reason="exit", code=1, stdout=b"", stderr=b"NameError: nothing")
    monkeypatch.setattr(programs, "_outcomes", lambda *args: (ended, ended))
    with pytest.raises(DataError, match="tests themselves failed to run: exit: NameError: nothing"):
        programs._session(None, {"first": 0, "partial": True}, 2, Limits(), 1.0)
    verdicts, again = programs._session(None, {"first": 1, "partial": True}, 2, Limits(), 1.0)
    assert [(v.test, v.why, again) for v in verdicts] == [(1, "timeout", False)]


def test_program_that_ends_once_the_tests_are_ready(monkeypatch):
    judged = Outcome(reason="exit", code=-9, stdout=b'{"ready": true}\n', stderr=b"")
    for reason, why in (("exit", "crash"), ("memory", "memory"), ("timeout", "timeout")):
        candidate = Outcome(reason=reason, code=1, stdout=b"", stderr=b"")
        monkeypatch.setattr(programs, "_outcomes", lambda *args, c=candidate: (judged, c))
        verdicts, _ = programs._session(None, {"first": 0, "partial": True}, 2, Limits(), 1.0)
        assert [(v.test, v.why) for v in verdicts] == [(0, why)]


def test_setup_uses_a_class_of_the_program():
    code = """
class Tree:
    def __init__(self, value): self.value, self.left, self.right = value, None, None
def total(t): return t.value + (total(t.left) if t.left else 0) + (total(t.right) if t.right else 0)
def same(a, b): return a is b
"""
    setup = "import math\nroot = Tree(1)\nroot.left = Tree(2)\nroot.right = Tree(int(math.sqrt(16)))"
    asserts = ["assert total(root) == 7", "assert root.left.value == 2", "assert same(root, root)"]
    asserts += ["assert isinstance(root, Tree) and not isinstance(4, Tree)", "assert total(root) == 8"]
    assert [why for _, why in judged(code, setup=setup, asserts=asserts)] == [None, None, None, None, "wrong"]
    assert judged("def total(t): return 7", setup=setup, asserts=asserts[:1]) == [(0, "crash")]


def test_setup_helpers_use_the_program():
    setup = "def twice(x):\n    return f(f(x))\nGRID = {}\nfill(GRID)"
    code = "def f(x): return x + 1\ndef fill(d): d['a'] = 1"
    assert judged(code, setup=setup, asserts=["assert twice(1) == 3"]) == [(0, None)]
    assert judged("def f(x): return x\ndef fill(d): pass", setup=setup, asserts=["assert twice(1) == 3"]) == [
        (0, "wrong")
    ]


def test_failing_setup_is_the_tests_fault():
    with pytest.raises(ModuleNotFoundError):
        judged("x = 1", setup="import no_such_module\nroot = Node(1)", asserts=["assert x == 1"])


def test_library_types_and_functions_as_arguments():
    code = """
def of_type(values, kind): return [v for v in values if isinstance(v, kind)]
def apply(f, *args): return f(*args)
def kind(x): return type(x)
def counts(words, make): return make(words).most_common(1)
"""
    rights = [
        "of_type((1, 'b', 2.5), (int, float)) == [1, 2.5]",
        "apply(max, 3, 7) == 7",
        "apply(math.gcd, 12, 18) == 6",
    ]
    rights += ["apply(operator.sub, 9, 4) == 5", "kind(3) is int and kind('a') == str and kind({}) != list"]
    rights += ["counts(['b', 'b'], collections.Counter) == [('b', 2)]", "apply(int, '12') == 12"]
    assert [why for _, why in judged(code, asserts=[f"assert {r}" for r in rights])] == [None] * len(rights)
    assert judged(code, asserts=["assert kind(3) is float"]) == [(0, "wrong")]


def test_candidate_cannot_name_functions_of_the_judge():
    """A returned `exec` stays a handle, and a forged name is refused."""
    assert judged("def f(): return exec", asserts=["assert f() is exec"]) == [(0, "wrong")]
    for path in (["builtins", "exec"], ["os", "system"], ["posix", "system"]):
        with pytest.raises(ValueError, match="only name builtin types"):
            decode({"library": path}, lambda tag, index: None)


def test_leetcode_names():
    code = """
class Solution:
    def f(self, n: Optional[int]) -> List[int]:
        seen = defaultdict(int, Counter([n]))
        queue, heap = deque([n]), [3, n]
        heapq.heapify(heap)
        @lru_cache(None)
        def up(k): return k if k >= n else up(k + 1)
        node = TreeNode(n, left=TreeNode(1)); head = ListNode(n, ListNode(2))
        best = min(inf, math.inf, float(n)); bisect_left([1, 2], 2)
        pairs = list(accumulate(product([1], [2]), add))
        return [seen[n], queue.pop(), heappop(heap), up(0), node.left.val + head.next.val, int(best), pow(2, 3, 5)]
"""
    calls = [{"function": "f", "args": [5], "expected": [1, 5, 3, 5, 3, 5, 3]}]
    assert judged(code, calls=calls) == [(0, None)]
    own = "class ListNode: pass\ndef f(x): return hasattr(ListNode(), 'val')"
    assert judged(own, calls=[{"function": "f", "args": [1], "expected": False}]) == [(0, None)]
    # Elsewhere an import that is missing is the program's mistake.
    assert judged("def f(x: List[int]): return x", asserts=["assert f(1) == 1"]) == [(0, "crash")]


def test_future_features_of_the_judge_do_not_leak():
    code = "def f(n: int): return n\ndef kind(): return f.__annotations__['n'] is int"
    assert judged(code, asserts=["assert kind()"]) == [(0, None)]
    own = f"from __future__ import annotations\n{code}"
    assert judged(own, asserts=["assert not kind()"]) == [(0, None)]
