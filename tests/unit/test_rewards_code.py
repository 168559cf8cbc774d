"""The code verifier up to the sandbox: which program is meant, what tests look like, and how values cross over."""

import socket
import threading
from collections import OrderedDict

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.code import CodeVerifier, code_tests, program
from r1ray.rewards.guest import Candidate, Handle, Judge, Peer, Unsendable, alike, decode, encode
from r1ray.rewards.programs import same_output

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


@pytest.mark.parametrize(
    "record",
    [
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
    assert language("```cobol\n1\n```", CASES) == "python"
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


def judged(code, **tests):
    """The reports on a program, both sides in threads of this process."""
    import io
    import json

    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rw") as left, theirs.makefile("rw") as right:
        thread = threading.Thread(target=Candidate(right).serve)
        thread.start()
        out = io.StringIO()
        Judge(Peer(left), out).run(code, {"setup": "", "asserts": [], "calls": [], "names": [], **tests})
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    return [(r["test"], r["why"]) for r in map(json.loads, out.getvalue().splitlines())]


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
