"""Programs that try to get out, to stay, or to be paid for nothing; all under the real bubblewrap."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from r1ray.errors import ConfigError
from r1ray.rewards.running import Limits
from r1ray.rewards.sandbox import Program, Sandbox
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
CALLS = {"function": "f", "calls": [{"args": [[1, 2]], "expected": [2, 3]}, {"args": [[]], "expected": []}]}


@pytest.fixture(scope="module")
def code():
    with scorer(reward("accuracy", verifier="code", test_timeout_s=4.0), timeout_s=8.0) as made:
        made.check()
        yield made


@pytest.fixture(scope="module")
def box():
    made = Sandbox("bubblewrap")
    made.check()
    return made


def fenced(program, language="python"):
    return f"<think>hm</think>\n```{language}\n{program}\n```"


def verdict(code, program, tests, language="python"):
    """The reward, and what is said of the first test that failed."""
    from r1ray.rewards.base import Sample

    judged = code.begin(Sample(response=fenced(program, language), answer=tests)).result()
    assert judged.score.error is None
    return judged.score.reward, judged.notes.get("accuracy", "")


def run(box, program, **limits):
    python = Program(argv=[box.python, "-I", "{box}/main.py"], files={"main.py": program.encode()}, stdin=b"in")
    return box.run(python, Limits(**{"wall_s": 5.0, **limits}))


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
        ("print(int(input()) + 6)", SQUARES, "test 2 of 2: wrong: printed '10\\n', expected '16\\n'"),
        ("print(int(input()) ** 2); 1 / 0", SQUARES, "test 1 of 2: crash: ZeroDivisionError: division by zero"),
        ("while True: pass", SQUARES, "test 1 of 2: timeout"),
        ("x = [0] * 10**10", SQUARES, "test 1 of 2: memory"),
        ("while True: print('x' * 1000)", SQUARES, "test 1 of 2: output"),
        ("def f(", ASSERTS, "test 1 of 3: crash: SyntaxError: '(' was never closed (<solution>, line 1)"),
    ],
)
def test_verdicts_say_which_test_failed_and_why(code, program, tests, note):
    assert verdict(code, program, tests) == (float(not note), note)


@NEEDED
def test_a_program_that_does_not_compile(code):
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


@NEEDED
@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_is_paid(code, name):
    value, note = verdict(code, CHEATS[name], ASSERTS)
    assert value == 0.0
    assert note


@NEEDED
def test_helpers_of_the_prompt_cannot_be_redefined(code):
    assert verdict(code, "def helper(x): return 4\ndef add(a, b): return 3", HUMAN)[0] == 0.0


@NEEDED
def test_the_expected_output_is_nowhere_inside(code):
    program = """
import os
secret = "7391" + "5208"
for folder, _, names in os.walk("/"):
    if folder.startswith(("/proc", "/usr", "/lib", "/dev")):
        continue
    for name in names:
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


@NEEDED
def test_it_sees_neither_the_environment_nor_the_host_nor_its_processes(box, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RAY_TEST_SECRET", "hush")
    (tmp_path / "config.yaml").write_text("hush")
    program = f"""
import os, glob
print(os.environ.get("R1RAY_TEST_SECRET"), os.path.exists({str(tmp_path)!r}), os.path.exists("/root"), os.path.exists("/home"))
print(any("hush" in open(p, errors="replace").read() for p in glob.glob("/proc/[0-9]*/environ")))
print(len(glob.glob("/proc/[0-9]*")) < 8, os.getuid() != 0)
"""
    assert run(box, program).stdout.decode().split() == ["None", "False", "False", "False", "False", "True", "True"]


@NEEDED
@pytest.mark.parametrize(
    "path", ["/x", "/usr/x", "/box/x", "/box/main.py", "/dev/x", "/etc/x", "/proc/1/x", "/home", "/lib/x"]
)
def test_it_cannot_write_outside(box, path):
    outcome = run(box, f"try:\n    open({path!r}, 'w')\nexcept OSError:\n    print('no')")
    assert outcome.stdout == b"no\n"
    assert not os.path.exists("/x")


@NEEDED
def test_it_has_no_network(box):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"""
import socket
for address in (("127.0.0.1", {port}), ("1.1.1.1", 53)):
    try:
        socket.create_connection(address, 1)
        print("connected")
    except OSError:
        print("no")
"""
        assert run(box, program).stdout == b"no\nno\n"


@NEEDED
def test_it_gains_no_rights(box):
    program = """
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.unshare(0x10000000), libc.setuid(0) if os.getuid() else -1)
"""
    assert run(box, program).stdout.split() == [b"-1", b"-1", b"-1"]


@NEEDED
def test_a_fork_bomb_is_contained(box):
    bomb = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(60)
        n += 1
except OSError:
    print(n)
"""
    outcome = run(box, bomb, processes=20)
    assert 0 < int(outcome.stdout) <= 20
    began = time.monotonic()
    run(box, "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", wall_s=1.0)
    assert time.monotonic() - began < 6.0
    assert left_behind("main.py") == []


@NEEDED
@pytest.mark.parametrize(
    "program",
    [
        "x = []\nwhile True: x.append(bytearray(10**7))",
        "import os\nfor _ in range(12):\n    if os.fork() == 0: break\nx = b'1' * (60 << 20)\nimport time; time.sleep(30)",
        "import mmap\nm = [mmap.mmap(-1, 1 << 26) for _ in range(64)]\nfor x in m: x.write(b'1' * (1 << 26))",
    ],
)
def test_memory_is_limited_for_all_processes_together(box, program):
    began = time.monotonic()
    assert run(box, program, memory_bytes=256 << 20, wall_s=20.0).reason == "memory"
    assert time.monotonic() - began < 15.0


@NEEDED
def test_disks_are_limited(box):
    program = """
import os
for folder in ("/tmp", "/dev/shm"):
    total = 0
    try:
        for i in range(1000):
            with open(f"{folder}/{i}", "wb") as f:
                total += f.write(b"0" * 10**6)
    except OSError:
        print(total < 100 * 10**6)
try:
    open("/tmp/big", "wb").write(b"0" * 10**8)
except OSError:
    print("no")
"""
    assert run(box, program, memory_bytes=1 << 30).stdout.split() == [b"True", b"True", b"no"]


@NEEDED
def test_output_is_capped(box):
    outcome = run(box, "import sys\nwhile True: sys.stderr.write('x' * 10**6)", output_bytes=10**6)
    assert (outcome.reason, len(outcome.stderr)) == ("output", 10**6)


@NEEDED
def test_ignoring_signals_and_leaving_a_daemon_do_not_help(box):
    deaf = """
import signal, time
for s in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)
while True: time.sleep(1)
"""
    began = time.monotonic()
    assert run(box, deaf, wall_s=0.5).reason == "timeout"
    assert time.monotonic() - began < 4.0
    daemon = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv("/usr/bin/sleep", ["r1ray-daemon", "61"])
    os._exit(0)
print("bye")
"""
    assert run(box, daemon).stdout == b"bye\n"
    wait_for(lambda: left_behind("r1ray-daemon") == [])


def left_behind(word):
    listing = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True, timeout=10).stdout
    return [line for line in listing.splitlines() if word in line and not line.startswith("Z") and "pytest" not in line]


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


@NEEDED
def test_the_worker_that_is_killed_takes_the_sandbox_along(code):
    from r1ray.rewards.base import Sample

    with scorer(reward("accuracy", verifier="code"), timeout_s=60.0) as s:
        pending = s.begin(Sample(response=fenced("import time\ntime.sleep(59.5)"), answer=SQUARES))
        wait_for(lambda: left_behind("--unshare-all"))
    assert pending.result().score.error.startswith("VerifierCrash")
    wait_for(lambda: left_behind("--unshare-all") == [])


def test_without_bubblewrap_the_code_reward_refuses_at_the_start_and_says_what_to_do(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with scorer(reward("accuracy", verifier="code")) as s:
        with pytest.raises(ConfigError, match="apt-get install -y bubblewrap"):
            s.check()


def test_where_namespaces_are_refused_the_reason_has_a_name(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr("r1ray.rewards.sandbox._SYSTEM_PATH", str(tmp_path))
    box = Sandbox("bubblewrap")
    box._user = None
    with pytest.raises(ConfigError, match="User namespaces are refused"):
        box.check()


def test_sandbox_none_is_loud_and_still_limits(caplog):
    box = Sandbox("none")
    box.check()
    assert "UNGUARDED" in caplog.text
    program = Program(
        argv=[sys.executable, "-I", "{box}/main.py"], files={"main.py": b"print(open(__file__).read()[:5])"}
    )
    assert box.run(program, Limits(wall_s=10.0)).stdout == b"print\n"
    slow = Program(argv=["sleep", "30"], files={})
    assert box.run(slow, Limits(wall_s=0.3)).reason == "timeout"
