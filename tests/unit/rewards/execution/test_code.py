"""The code verifier up to the sandbox: which program is meant, what tests look like, and how values cross over."""

import json
import math
import socket
from collections import OrderedDict

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.execution.code import CodeVerifier, program
from r1ray.rewards.execution.comparison import alike, same_output
from r1ray.rewards.execution.crossing import Handle, UnsendableError, decode, encode
from r1ray.rewards.execution.guest import _decoded_call
from r1ray.rewards.execution.suites import code_tests
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
def test_program_is_the_last_fenced_block_of_the_answer(response, expected):
    assert program(response) == expected


@pytest.mark.parametrize(
    ("response", "wanted", "expected"),
    [
        ("```py\nA\n```\nprints\n```\n5\n```", "", "A\n"),
        ("```py\nA\n```\nprints\n```output\n5\n```", "python", "A\n"),
        ("```py\nA\n```\nRun it:\n```bash\npython a.py\n```", "", "A\n"),
        ("```py\nA\n```\nRun it:\n```sh\npython a.py\n```", "python", "A\n"),
        ("```cpp\nA\n```\n```bash\ng++ a.cpp\n```", "", "A\n"),
        ("```py\nA\n```\n```bash\necho 5\n```", "bash", "echo 5\n"),
        ("```bash\necho 5\n```\n```text\n5\n```", "", "echo 5\n"),
        ("```py\nA\n```\nBetter:\n```python3\nB\n```\n```\n5\n```", "python", "B\n"),
        ("```js\nA\n```\n```py\nB\n```", "javascript", "A\n"),
        ("```\nA\n```\n```text\n5\n```", "python", "A\n"),
        ("```text\nA\n```", "python", "A\n"),
    ],
)
def test_program_followed_by_output_or_shell_command(response, wanted, expected):
    assert program(response, wanted)[0] == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("2) So:\n\t```py\n\tif 1:\n\t\tf()\n\t```", "if 1:\n\tf()\n"),
        ("* So:\n    ```py\n    if 1:\n        f()\n\n    g()\n    ```", "if 1:\n    f()\n\ng()\n"),
        ("- ```py\n  if 1:\n      f()\n  ```", "if 1:\n    f()\n"),
        ("10. ```py\n    f()\n    ```", "f()\n"),
        ("  ```py\nf()\n   g()\n  ```", "f()\n g()\n"),
        ("```py\n    return a\n```", "    return a\n"),
        ('```py\ndef f():\n    """So:\n    ```\n    f()\n    ```\n    """\n```', None),
        ("```py\nA\n````", "A\n"),
        ("```inline``` code\n```py\nA\n```", "A\n"),
    ],
)
def test_indented_fences(response, expected):
    """A block loses the indentation of its fence; a fence inside a docstring does not close it."""
    assert program(response)[0] == (expected or response.partition("\n")[2].removesuffix("```"))


def test_future_imports_precede_recorded_code():
    human = {"entry_point": "f", "test": "def check(c): pass", "prompt": "import math\ndef f(x):\n"}
    response = "```python\nfrom __future__ import annotations\ndef f(x: N): return 1\n```"
    code = CodeVerifier()(Sample(response=response, answer=human)).args["code"]
    assert code == "from __future__ import annotations\nimport math\ndef f(x):\n\ndef f(x: N): return 1\n"


def test_shapes_of_tests():
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


def test_shapes_of_published_datasets():
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
def test_recorded_language_that_is_not_run(answer, says):
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
def test_unknown_shape_of_tests(record):
    with pytest.raises(DataError, match="recorded tests"):
        code_tests(record)


def test_language_of_record_then_fence():
    def language(response, answer, **params):
        call = CodeVerifier(**params)(Sample(response=response, answer=answer))
        assert isinstance(call, Call)
        return call.args["language"]

    assert language("```js\n1\n```", CASES) == "javascript"
    assert language("```js\n1\n```", {"tests": CASES, "language": "bash"}) == "bash"
    assert language("```js\n1\n```", CASES, language="cpp") == "cpp"
    assert language("```cobol\n1\n```", CASES) == "cobol"  # refused later: this language is not run
    assert language("```\n1\n```", CASES) == language("1", CASES) == "python"
    assert language("```js\n1\n```", {"asserts": ["assert f() == 1"]}) == "python"
    assert CodeVerifier()(Sample(response="<think>hm", answer=CASES)) == 0.0
    with pytest.raises(ConfigError, match="memory_mib"):
        CodeVerifier(memory_mib=1)


def test_tests_reach_the_worker_unchanged():
    def sent(calls):
        call = CodeVerifier()(Sample(response="1", answer=calls))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            frames.send(ours, call.args)
            return [_decoded_call(c) for c in json.loads(frames.receive(theirs)["tests"])["calls"]]

    big = '{"function": "f", "calls": [{"args": [1180591620717411303424, "\\ud800"], "expected": Infinity}]}'
    assert sent(big) == [{"function": "f", "args": [2**70, "\ud800"], "expected": math.inf}]
    assert sent({"function": "f", "calls": [{"args": (2,), "expected": {"a": (1,)}}]})[0]["expected"] == {"a": (1,)}
    assert sent({"function": "f", "calls": [{"args": [b"1"], "expected": {2: 1}}]})[0]["expected"] == {2: 1}
    long = f'{{"function": "f", "tests": [{{"input": "{"7" * 5000}", "output": "{"3" * 9000}"}}]}}'
    assert sent(long) == [{"function": "f", "args": [7 * (10**5000 // 9)], "expected": 3 * (10**9000 // 9)}]
    with pytest.raises(DataError, match="a value that no program can be given"):
        sent({"function": "f", "calls": [{"args": [lambda: 0], "expected": 1}]})


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
        ("0.00003", "3e-05", True),
        ("3E-5", "3e-05", True),
        ("1200000", "1.2e6", True),
        ("100000", "1e5", True),
        ("0.00005", "3e-05", False),
        ("1e5", "100000", False),
        ("1_0", "1e1", False),
        ("١.5", "1.5", False),
        ("1.0e999", "5.0", False),
        ("", "1", False),
    ],
)
def test_same_output(given, expected, same):
    assert same_output(given, expected) == same


def no_link(tag, index):
    raise AssertionError(f"{tag} {index} is no plain data")


def test_plain_data_travels_by_value():
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
        back = decode(encode(value, None), no_link)
        assert back == value
        assert type(back) is type(value)
    assert decode(encode(OrderedDict(a=1), None), no_link) == {"a": 1}
    back = decode(encode(Sly(5), None), no_link)
    assert type(back) is int
    assert back != 6
    with pytest.raises(UnsendableError, match="function"):
        encode(lambda: 0, None)


def test_alike():
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
