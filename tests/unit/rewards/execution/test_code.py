"""The code verifier up to the sandbox: which program is meant, what tests look like, and how values cross over."""

import json
import math
import socket
from collections import OrderedDict

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.execution.code import CodeVerifier, code_tests, program
from r1ray.rewards.execution.crossing import Handle, Unsendable, decode, encode
from r1ray.rewards.execution.guest import alike
from r1ray.rewards.execution.programs import same_output
from r1ray.rewards.workers import frames
from tests.unit.reward_support import judged

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


def test_tests_reach_the_worker_whole_or_are_an_error():
    def sent(calls):
        call = CodeVerifier()(Sample(response="1", answer=calls))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            frames.send(ours, call.args)
            return json.loads(frames.receive(theirs)["tests"])["calls"]

    big = '{"function": "f", "calls": [{"args": [1180591620717411303424, "\\ud800"], "expected": Infinity}]}'
    assert sent(big) == [{"function": "f", "args": [2**70, "\ud800"], "expected": math.inf}]
    assert sent({"function": "f", "calls": [{"args": (2,), "expected": {"a": (1,)}}]})[0]["expected"] == {"a": [1]}
    with pytest.raises(DataError, match="not what JSON can say"):
        sent({"function": "f", "calls": [{"args": [b"1"], "expected": 1}]})


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
        ("5", "1.0e999", False),
        ("-1.0e999", "1.0e999", False),
        ("2.0e999", "1.0e999", True),
        ("1.0e999", "5.0", False),
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
    assert alike(math.inf, math.inf)
    assert not any(alike(x, math.inf) for x in (5, 5.0, 10**400, -math.inf, math.nan))
    assert not any(alike(math.inf, x) for x in (5, 5.0, 10**400))
    assert alike(10**400, 10**400)
    assert not alike(1e300, 10**400)
    assert alike(1.0000001e15, 10**15)
    assert not alike(10**15 + 1, 10**15)  # whole numbers: one off is wrong
