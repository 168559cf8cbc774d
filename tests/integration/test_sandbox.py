"""Programs that are judged, and programs that try to get a reward without solving the task,
under the real bubblewrap.
"""

import json
import shutil

import pytest

from tests.unit.reward_support import judge, reward, scorer

pytestmark = pytest.mark.integration

NEEDED = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install -y bubblewrap"
)
SQUARES = [{"stdin": "3\n", "stdout": "9\n"}, {"stdin": "4\n", "stdout": "16\n"}]
ASSERTS = {"asserts": ["assert f(1) == 2", "assert f(2) == 3", "assert sorted(f(i) for i in range(3)) == [1, 2, 3]"]}
HUMAN = {
    "entry_point": "add",
    "prompt": 'def helper(x):\n    return x\n\ndef add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert helper(candidate(2, 2)) == 4\n",
}
FIBONACCI = '{"inputs": [[1], [100]], "outputs": [1, 354224848179261915075], "fn_name": "f"}'
CALLS = {"function": "f", "calls": [{"args": [[1, 2]], "expected": [2, 3]}, {"args": [[]], "expected": []}]}


@pytest.fixture(scope="module")
def code():
    with scorer(reward("accuracy", verifier="code", test_timeout_s=4.0), timeout_s=8.0) as made:
        made.check()
        yield made


def fenced(program, language="python"):
    return f"<think>hm</think>\n```{language}\n{program}\n```"


def verdict(code, program, tests, language="python"):
    """The reward, and what is said of the first test that failed."""
    from r1ray.rewards.base import Sample

    judged = code.begin(Sample(response=fenced(program, language), answer=tests)).result()
    assert judged.score.error is None
    return judged.score.reward, judged.notes.get("accuracy", "")


@NEEDED
@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("python", "print(int(input()) ** 2)"),
        ("bash", "read x; echo $((x * x))"),
        ("cpp", "#include <iostream>\nint main() { long x; std::cin >> x; std::cout << x * x; }"),
        ("javascript", "const x = parseInt(require('fs').readFileSync(0)); console.log(x * x)"),
    ],
)
def test_each_language_runs(code, language, program):
    tool = {"cpp": "g++", "javascript": "node"}.get(language, "bash")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    assert verdict(code, program, SQUARES, language) == (1.0, "")


@NEEDED
@pytest.mark.parametrize(
    ("program", "tests", "note"),
    [
        ("def f(x): return x + 1", ASSERTS, ""),
        ("def f(x): return 2", ASSERTS, "test 2 of 3: wrong"),
        ("    return a + b", HUMAN, ""),
        ("def add(a, b): return a + b", HUMAN, ""),
        ("    return a - b", HUMAN, "test 1 of 1: wrong"),
        ("def f(x): return [i + 1 for i in x]", CALLS, ""),
        ("class Solution:\n    def f(self, x): return tuple(i + 1 for i in x)", CALLS, ""),
        ("def f(x): return x", CALLS, "test 1 of 2: wrong: f(...) gave [1, 2], expected [2, 3]"),
        ("def f(n, a=0, b=1): return f(n - 1, b, a + b) if n else a", FIBONACCI, ""),
        (
            "def f(n, a=0, b=1): return f(n - 1, b, a + b) if n else a + a // 10",
            FIBONACCI,
            "test 2 of 2: wrong: f(...) gave 389647332997188106582, expected 354224848179261915075",
        ),
        ("print(int(input()) + 6)", SQUARES, "test 2 of 2: wrong: printed '10\\n', expected '16\\n'"),
        ("print(int(input()) ** 2); 1 / 0", SQUARES, "test 1 of 2: crash: ZeroDivisionError: division by zero"),
        ("while True: pass", SQUARES, "test 1 of 2: timeout"),
        ("x = [0] * 10**10", SQUARES, "test 1 of 2: memory"),
        ("while True: print('x' * 1000)", SQUARES, "test 1 of 2: output"),
        ("def f(", ASSERTS, "test 1 of 3: crash: SyntaxError: '(' was never closed (<solution>, line 1)"),
    ],
)
def test_note_names_the_first_failed_test(code, program, tests, note):
    assert verdict(code, program, tests) == (float(not note), note)


@NEEDED
@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("python", "with open('/dev/stdin') as f: print(int(f.read()) ** 2, file=open('/dev/stdout', 'w'))"),
        ("python", "import os\nprint(int(os.read(os.open('/proc/self/fd/0', os.O_RDONLY), 9)) ** 2)"),
        ("bash", "read x < /dev/stdin; echo hm > /dev/stderr; echo $((x * x)) > /dev/stdout"),
        ("javascript", "console.log(require('fs').readFileSync('/dev/stdin') ** 2)"),
    ],
)
def test_standard_streams_open_by_path(code, language, program):
    if language == "javascript" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    assert verdict(code, program, SQUARES, language) == (1.0, "")


@NEEDED
def test_integers_of_any_length(code):
    long = "8" * 6000
    echo = "n = input(); assert str(int(n)) == n; print(int(n) * 10)"
    assert verdict(code, echo, [{"stdin": long, "stdout": long + "0"}]) == (1.0, "")
    suite = f'{{"function": "f", "tests": [{{"input": "{long}", "output": "{long}0"}}]}}'
    assert verdict(code, "def f(n): return int(str(n) + '0')", suite) == (1.0, "")
    assert verdict(code, "def f(n): return n * 10 + 1", suite)[0] == 0.0
    assert verdict(code, "def f(n): return n * 10", {"asserts": [f"assert f({long}) == {long}0"]}) == (1.0, "")


@NEEDED
def test_deep_recursion_of_functions(code):
    """Through Python frames alone, and through C frames of `lru_cache`."""
    deep = {"function": "f", "calls": [{"args": [20_000], "expected": 20_000}]}
    assert verdict(code, "def f(n): return n and 1 + f(n - 1)", deep) == (1.0, "")
    deep["calls"][0].update(args=[9_000], expected=9_000)
    assert verdict(code, "@lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)", deep) == (1.0, "")


@NEEDED
def test_language_that_is_not_run(code, monkeypatch):
    value, note = verdict(code, "class Main {}", SQUARES, "java")
    assert (value, note) == (0.0, "test 1 of 2: language: programs in java are not run")
    from r1ray.errors import DataError
    from r1ray.rewards.execution import programs

    monkeypatch.setattr(programs.Sandbox, "tool", lambda self, *names: None)
    work = {
        "code": "1",
        "tests": json.dumps({"kind": "stdio", "cases": SQUARES}),
        "partial": False,
        "test_timeout_s": 1.0,
    }
    limits = {"memory_bytes": 1 << 28, "sandbox": "bubblewrap", "limit_s": 1.0}
    value, note = programs.judge(language="cpp", chosen=True, **work, **limits)
    assert (value, note) == (0.0, "test 1 of 2: language: this machine has no interpreter or compiler for cpp")
    with pytest.raises(DataError, match="no interpreter or compiler for cpp"):
        programs.judge(language="cpp", chosen=False, **work, **limits)


@NEEDED
def test_program_that_does_not_compile(code):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    value, note = verdict(code, "int main() { return x; }", SQUARES, "cpp")
    assert value == 0.0
    assert note.startswith("test 1 of 2: compile: ")


@NEEDED
def test_partial_credit():
    with scorer(reward("accuracy", verifier="code", partial=True)) as s:
        assert judge(s, fenced("print(9)"), SQUARES).reward == 0.5
        assert judge(s, fenced("def f(x): return x + 1 if x else 5"), ASSERTS).reward == pytest.approx(2 / 3)


CHEATS = {
    "os._exit before the asserts": "import os\nos._exit(0)",
    "os._exit in the call": "import os\ndef f(x): os._exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "the end of the test's loops": "def f(x): raise StopIteration",
    "the end of a generator": "def f(x): raise GeneratorExit",
    "a builtin under test": "def all(x): return True\ndef zip(*x): return []\ndef f(x): return 0",
    "a list that cannot be read": "class L(list):\n    def __iter__(self): raise RuntimeError\nf = L()",
    "a name that is no text": "import ctypes, time\nctypes.CDLL(None).prctl(15, bytes([255, 254]))\ntime.sleep(0.2)\nf = 0",
    "equal to everything": """
class T:
    def __eq__(self, other): return True
    def __lt__(self, other): return True
def f(x): return T()
""",
    "a number equal to everything": "class T(int):\n    def __eq__(self, other): return True\ndef f(x): return T(50)",
    "a patched builtin": "import builtins\nbuiltins.sorted = lambda x: [1, 2, 3]\ndef f(x): return 2 if x == 1 else 3",
    "a builtin of its own": "def sorted(x): return [1, 2, 3]\ndef f(x): return 2 if x == 1 else 3",
    "patched asserts": "import sys\nsys.modules['__main__'].Judge = None\nAssertionError = ValueError\ndef f(x): return 0",
    "answers written into the line": """
import json, socket
def f(x):
    for fd in range(3, 64):
        try:
            socket.socket(fileno=fd).sendall(b'{"value": {"int": "0x2"}}\\n' * 3)
        except OSError:
            pass
    return 0
""",
    "reports written to the standard output": """
import os, json
for fd in (1, 2):
    for test in range(3):
        os.write(fd, (json.dumps({"test": test, "why": None, "text": "", "stop": False}) + "\\n").encode())
def f(x): return 0
""",
    "the tests, searched in memory and on disk": """
import gc, os, sys
found = [v for o in gc.get_objects() if isinstance(o, dict) for v in o.values() if isinstance(v, str) and "assert f(" in v]
for folder in ("/box", "/tmp", "/proc/self", "/proc/1"):
    for name in os.listdir(folder):
        try:
            text = open(os.path.join(folder, name), errors="replace").read(100000)
        except OSError:
            continue
        if "f(1) == 2" in text.replace('"f(1) == 2"', ""):
            found.append(name)
def f(x): return x + 1 if found else 0
""",
    "the judge, killed": """
import os, signal
for pid in range(1, 60):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
os.kill(os.getppid(), signal.SIGKILL)
def f(x): return 0
""",
}


LOOPS = {
    "asserts": [
        "assert all(map(lambda p: f(p) == p + 1, [1, 2, 3]))",
        "for a, b in zip(map(f, [1, 2]), [2, 3]): assert a == b",
    ]
}
RAISES = {"asserts": ["try:\n    f(1)\nexcept Exception:\n    pass", "try:\n    f(1)\nexcept:\n    pass"]}


@NEEDED
@pytest.mark.parametrize("name", CHEATS)
def test_cheats_earn_nothing(code, name):
    for tests in (ASSERTS, LOOPS):
        value, note = verdict(code, CHEATS[name], tests)
        assert value == 0.0
        assert note
        assert "timeout" not in note  # it has been found out, not waited for


@NEEDED
def test_tests_cannot_catch_the_death_of_the_program(code):
    dead = CHEATS["os._exit in the call"]
    assert verdict(code, dead, RAISES) == (0.0, "test 1 of 2: crash: the program ended before its tests did")


ENDLESS = "def f(x):\n    while x == 0: pass\n    return x\n"


@NEEDED
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (ENDLESS, {"asserts": ["assert f(0) == 0", "assert f(1) == 1"]}),
        (ENDLESS, {"entry_point": "f", "test": "def check(f):\n    assert f(1) == 1 and f(0) == 0"}),
        (ENDLESS, {"function": "f", "calls": [{"args": [0], "expected": 0}, {"args": [1], "expected": 1}]}),
        (ENDLESS + "print(f(int(input())))", [{"stdin": "0", "stdout": "0"}, {"stdin": "1", "stdout": "1"}]),
        ("while True: pass", {"asserts": ["assert f(0) == 0"]}),
    ],
)
def test_endless_loop_fails_only_its_test(program, tests):
    from r1ray.rewards.base import Sample

    sample = Sample(response=fenced(program), answer=tests)
    with scorer(reward("accuracy", verifier="code", partial=True, test_timeout_s=3.0), timeout_s=60.0) as s:
        judged = s.begin(sample).result()
    assert judged.score.error is None
    assert "timeout" in judged.notes["accuracy"]
    one = isinstance(tests, dict) and ("entry_point" in tests or program.startswith("while"))
    assert judged.score.reward == (0.0 if one else 0.5)
    assert judged.seconds < 30.0


@NEEDED
def test_program_that_exits_is_restarted_for_the_next_test():
    program = "import os\ndef f(x):\n    if x == 0: os._exit(0)\n    return x"
    with scorer(reward("accuracy", verifier="code", partial=True)) as s:
        judged = judge(s, fenced(program), {"asserts": ["assert f(0) == 0", "assert f(1) == 1", "assert f(0) == 0"]})
    assert judged.parts == {"accuracy": pytest.approx(1 / 3)}


@NEEDED
def test_processor_time_limit_is_a_timeout():
    """Of several processors at once, that is: for one, the clock strikes first."""
    busy = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 9))\ndef f(x):\n    while True: pass"
    with scorer(reward("accuracy", verifier="code", test_timeout_s=20.0), timeout_s=30.0) as s:
        from r1ray.rewards.base import Sample

        judged = s.begin(Sample(response=fenced(busy), answer=ASSERTS)).result()
    assert judged.notes["accuracy"] == "test 1 of 3: timeout"


@NEEDED
def test_helpers_of_the_prompt_cannot_be_redefined(code):
    assert verdict(code, "def helper(x): return 4\ndef add(a, b): return 3", HUMAN)[0] == 0.0


@NEEDED
def test_expected_output_is_not_in_the_sandbox(code):
    program = """
import os
secret = "7391" + "5208"
for folder, inner, names in os.walk("/"):
    if folder == "/":
        inner[:] = {*inner} - {"proc", "usr", "lib", "lib64", "dev"}
    for name in names:
        if os.path.islink(os.path.join(folder, name)):  # into /usr
            continue
        try:
            if secret in open(os.path.join(folder, name), errors="replace").read(1 << 20):
                print(secret)
        except OSError:
            pass
"""
    assert verdict(code, program, [{"stdin": "", "stdout": "73915208"}]) == (
        0.0,
        "test 1 of 1: wrong: printed '', expected '73915208'",
    )
