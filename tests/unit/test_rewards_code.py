"""The code verifier up to the sandbox: which program is meant, what tests look like, and how values cross over."""

import contextlib
import socket
import threading
from collections import OrderedDict

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.rewards import programs
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.code import CodeVerifier, code_tests, program
from r1ray.rewards.crossing import Handle, Peer, Unsendable, decode, encode
from r1ray.rewards.guest import Candidate, Judge, alike
from r1ray.rewards.programs import same_output
from r1ray.rewards.running import Limits, Outcome

CASES = [{"stdin": "1", "stdout": "2"}]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("```python\nprint(1)\n```", ("print(1)\n", "python")),
        ("First:\n```\na\n```\nno, this:\n```py\nb\n```\nDone.", ("b\n", "py")),
        ("<think>```python\na\n```</think> <answer>```c++\nb\n```</answer>", ("b\n", "c++")),
        ("<think>```python\na\n```</think>", ("", "")),
        ("<think>```python\na\n```", ("", "")),
        ("    return a + b", ("    return a + b", "")),
        ("~~~js\na\n~~~", ("a\n", "js")),
        ("````python\nx = '''\n```\n'''\n````", ("x = '''\n```\n'''\n", "python")),
        ("```python\nprint(1)", ("", "")),
    ],
)
def test_the_last_fenced_block_of_the_answer_is_the_program(response, expected):
    assert program(response) == expected


def test_the_shapes_of_tests():
    assert code_tests(CASES) == code_tests([{"input": "1", "output": "2"}]) == code_tests({"tests": CASES})
    mbpp = code_tests({"asserts": ["assert f(1) == 2"], "setup": "import math"})
    assert (mbpp["kind"], mbpp["asserts"], mbpp["setup"]) == ("calls", ["assert f(1) == 2"], "import math")
    human = {"entry_point": "f", "test": "def check(candidate): assert candidate(1) == 2", "prompt": "def f(x):\n"}
    assert code_tests(human)["asserts"] == ["def check(candidate): assert candidate(1) == 2\ncheck(f)"]
    assert code_tests(human)["before"] == "def f(x):\n\n"
    assert code_tests(
        {"tests": {k: human[k] for k in ("entry_point", "test")}, "prompt": human["prompt"]}
    ) == code_tests(human)
    bench = code_tests({"function": "f", "tests": [{"input": '[1, 2]\n"a"', "output": "[2]"}]})
    assert bench["calls"] == [{"function": "f", "args": [[1, 2], "a"], "expected": [2]}]
    assert code_tests({"function": "f", "calls": [{"args": [[1, 2], "a"], "expected": [2]}]}) == bench


def test_the_shapes_that_datasets_publish():
    stdio = code_tests(CASES)
    assert code_tests({"inputs": ["1"], "outputs": ["2"]}) == code_tests('{"inputs": ["1"], "outputs": ["2"]}') == stdio
    assert code_tests('[{"input": "1", "output": "2", "testtype": "stdin"}]') == stdio
    assert code_tests({"tests": '[{"input": "1", "output": "2"}]'}) == stdio
    assert code_tests({"inputs": [["1", "2"]], "outputs": [["3", "4"]]})["cases"] == [
        {"stdin": "1\n2", "stdout": "3\n4"}
    ]
    calls = {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "f"}
    assert code_tests(calls)["calls"][1] == {"function": "f", "args": [3, 4], "expected": 7}
    boxed = code_tests({**calls, "outputs": [[3], [7]]})
    assert judged("def f(a, b): return a + b", calls=boxed["calls"]) == [(0, None), (1, None)]
    assert judged("def f(a, b): return [a + b]", calls=boxed["calls"]) == [(0, None), (1, None)]
    assert judged("def f(a, b): return [3]", calls=boxed["calls"]) == [(0, None), (1, "wrong")]
    asserts = code_tests({"asserts": ["assert f(1) == 2"]})
    assert code_tests(["assert f(1) == 2"]) == asserts
    mbpp = {"test_list": ["assert f(1) == 2"], "test_setup_code": "x = 1", "test_imports": ["import math"]}
    assert code_tests(mbpp) == {**asserts, "setup": "import math\nx = 1"}
    bench = {"function": "f", "tests": '[{"input": "1", "output": "2", "testtype": "functional"}]'}
    assert code_tests(bench)["calls"] == [{"function": "f", "args": [1], "expected": 2}]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"tests": CASES, "language": "Rust"}, "Rust.*bash, cpp, javascript, python"),
        ({"asserts": ["assert f()"], "language": "bash"}, "Python only"),
    ],
)
def test_a_language_on_record_that_is_not_run_is_an_error(answer, says):
    with pytest.raises(DataError, match=says):
        CodeVerifier()(Sample(response="1", answer=answer))


@pytest.mark.parametrize(
    "record",
    [
        ["1"],
        {"inputs": ["1"], "outputs": []},
        {"inputs": ["1"], "outputs": ["2"], "fn_name": "f"},
        '[{"input": "1", "output": "2", "testtype": "functional"}]',
        "[" * 100_000,
        None,
        "assert 1",
        5,
        [],
        {},
        [{"stdin": "1"}],
        {"asserts": []},
        {"function": "f", "tests": [{"input": "{", "output": "1"}]},
    ],
)
def test_tests_of_no_known_shape_are_an_error_by_name(record):
    with pytest.raises(DataError, match="tests on record"):
        code_tests(record)


def test_the_language_is_the_records_then_the_fences():
    def language(response, answer, **params):
        call = CodeVerifier(**params)(Sample(response=response, answer=answer))
        assert isinstance(call, Call)
        return call.args["language"]

    assert language("```js\n1\n```", CASES) == "javascript"
    assert language("```js\n1\n```", {"tests": CASES, "language": "bash"}) == "bash"
    assert language("```js\n1\n```", CASES, language="cpp") == "cpp"
    assert language("```cobol\n1\n```", CASES) == "cobol"  # and the program is told that this is not run
    assert language("```\n1\n```", CASES) == language("1", CASES) == "python"
    assert language("```js\n1\n```", {"asserts": ["assert f() == 1"]}) == "python"
    assert CodeVerifier()(Sample(response="<think>hm", answer=CASES)) == 0.0
    with pytest.raises(ConfigError, match="memory_mib"):
        CodeVerifier(memory_mib=1)


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2 \n3\n\n", "1 2\n3", True),
        ("1 2 3", "1 2\n3", False),
        ("0.3333", "0.333333", False),
        ("0.33333333", "0.33333333333", True),
        ("2.0", "2", False),
        ("2", "2.0", True),
        ("Yes", "YES", False),
        ("", "", True),
        ("nan", "1.0", False),
        ("", "1", False),
    ],
)
def test_outputs_are_the_same(given, expected, same):
    assert same_output(given, expected) == same


def test_plain_data_crosses_over_by_value():
    class Sly(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    for value in (
        None,
        True,
        5,
        -(10**50),
        0.5,
        "a\ud800",
        b"\x00",
        1 + 2j,
        [1, (2, {3})],
        {(1, 2): [None]},
        frozenset({1}),
    ):
        back = decode(encode(value, None), None)
        assert back == value
        assert type(back) is type(value)
    assert decode(encode(OrderedDict(a=1), None), None) == {"a": 1}
    back = decode(encode(Sly(5), None), None)
    assert type(back) is int
    assert back != 6
    with pytest.raises(Unsendable, match="function"):
        encode(lambda: 0, None)


def test_alike_compares_what_json_can_say():
    assert alike((1, [2.0000001]), [1, [2.0]])
    assert alike({1: "a"}, {"1": "a"})
    assert not alike(True, 1)
    assert not alike([1], [1, 2])
    assert not alike("1", 1)
    assert not alike(Handle(None, 0), 1)


def judged(code, test_s=5.0, **tests):
    """The reports on a program, both sides in threads of this process."""
    import io
    import json

    ours, theirs = socket.socketpair()
    unsent = contextlib.suppress(BrokenPipeError)  # a reply that nobody waits for any more
    with ours, theirs, unsent, ours.makefile("rw") as left, unsent, theirs.makefile("rw") as right:
        closed = threading.Event()
        candidate = Candidate(right)
        candidate._module.__dict__.update(closed=closed, leave=lambda: theirs.shutdown(socket.SHUT_RDWR))

        def serve():
            with contextlib.suppress(OSError):  # it has left, or its judge has: its process would end
                candidate.serve()

        thread = threading.Thread(target=serve)
        thread.start()
        out = io.StringIO()
        whole = {"setup": "", "asserts": [], "calls": [], "names": [], **tests}
        Judge(Peer(left), out, test_s).run(code, whole)
        closed.set()
        with contextlib.suppress(OSError):  # the candidate has left
            ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    ready, *reports = map(json.loads, out.getvalue().splitlines())
    assert ready == {"ready": True}
    return [(r["test"], r["why"]) for r in reports]


def test_the_judge_calls_the_candidate():
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


def test_what_the_tests_use_is_the_judges_own():
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


def test_methods_of_a_solution_class_are_found():
    calls = [{"function": "f", "args": [2], "expected": 4}, {"function": "f", "args": [2], "expected": 5}]
    assert judged("class Solution:\n    def f(self, x): return x * x", calls=calls) == [(0, None), (1, "wrong")]


def test_what_ends_loops_in_python_does_not_end_those_of_the_tests():
    loops = ["assert all(map(lambda p: f(p) == p + 1, [1, 2]))", "for a, b in zip(map(f, [1]), [2]): assert a == b"]
    for name in ("StopIteration", "StopAsyncIteration", "GeneratorExit"):
        assert judged(f"def f(x): raise {name}", asserts=loops) == [(0, "crash"), (1, "crash")]


@pytest.mark.parametrize("guard", ["except Exception", "except", "except BaseException"])
def test_a_program_that_is_gone_or_late_is_no_exception_that_a_test_may_expect(guard):
    asserts = [f"try:\n    f(1)\n{guard}:\n    pass"]
    assert judged("def f(x): leave()", asserts=asserts) == [(0, "crash")]
    late = "def f(x):\n    while not closed.is_set(): pass"
    assert judged(late, asserts=asserts, test_s=0.05) == [(0, "timeout")]


def test_a_test_that_never_ends_is_late_wherever_it_loops():
    code = "def f(x):\n    while x == 0 and not closed.is_set(): pass\n    return x"
    assert judged(code, asserts=["assert f(1) == 1", "assert f(0) == 0"], test_s=0.05) == [(0, None), (1, "timeout")]
    assert judged("def f(x): return 0", asserts=["while not f(1): pass"], test_s=0.05) == [(0, "timeout")]
    assert judged("while not closed.is_set(): pass", asserts=["assert f(1)"], test_s=0.05) == [(0, "timeout")]
    calls = [{"function": "f", "args": [0], "expected": 0}]
    assert judged(code, calls=calls, test_s=0.05) == [(0, "timeout")]


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
def test_what_the_program_is_made_of_is_never_the_tests_fault(code):
    assert judged(code, asserts=["assert f(1) == 2, f(1)"]) in ([(0, "wrong")], [(0, "crash")])


def test_a_function_of_the_librarys_name_is_the_programs_where_only_it_can_be_meant():
    adds = "def sum(a, b): return a + b"
    assert judged(adds, asserts=["assert sum(10, 15) == 25", "assert sum(1, 2) == 3"]) == [(0, None), (1, None)]
    assert judged("def bisect(x): return x", asserts=["assert bisect(1) == 1"]) == [(0, None)]
    assert judged("x = 1", asserts=["assert max(1, 2) == 2"]) == [(0, "crash")]
    every = "def set(x): return 1\ndef f(x): return 2"
    assert judged(every, asserts=["assert set(f(1)) == set([1])", "assert set(f(2)) == set([2])"])[0][1] == "crash"


def test_values_of_the_library_are_compared_as_what_they_are():
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


def test_what_no_program_can_be_given_is_the_tests_fault_only_where_they_give_it_to_what_they_test():
    assert judged("def f(x): return 1", asserts=["assert f(lambda: 0) == 1"]) == [(0, "unfit")]
    code = "class T:\n    def union(self, x): return x\ndef f(x): return T()"
    assert judged(code, asserts=["assert f(1).union(lambda: 0)"]) == [(0, "crash")]


def test_tests_that_never_became_ready_are_at_fault_unless_they_were_ready_before(monkeypatch):
    ended = Outcome(reason="exit", code=1, stdout=b"", stderr=b"NameError: nothing")
    monkeypatch.setattr(programs, "_outcomes", lambda *args: (ended, ended))
    with pytest.raises(DataError, match="tests themselves failed to run: exit: NameError: nothing"):
        programs._session(None, {"first": 0, "partial": True}, 2, Limits(), 1.0)
    verdicts, again = programs._session(None, {"first": 1, "partial": True}, 2, Limits(), 1.0)
    assert [(v.test, v.why, again) for v in verdicts] == [(1, "timeout", False)]


def test_a_program_that_ends_after_the_tests_were_ready_is_at_fault(monkeypatch):
    judged = Outcome(reason="exit", code=-9, stdout=b'{"ready": true}\n', stderr=b"")
    for reason, why in (("exit", "crash"), ("memory", "memory"), ("timeout", "timeout")):
        candidate = Outcome(reason=reason, code=1, stdout=b"", stderr=b"")
        monkeypatch.setattr(programs, "_outcomes", lambda *args, c=candidate: (judged, c))
        verdicts, _ = programs._session(None, {"first": 0, "partial": True}, 2, Limits(), 1.0)
        assert [(v.test, v.why) for v in verdicts] == [(0, why)]
