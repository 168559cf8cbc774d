"""What a program in the sandbox can see, reach and use up; under the real bubblewrap."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid

import pytest

from r1ray.errors import ConfigError
from r1ray.rewards.execution.running import Limits
from r1ray.rewards.execution.sandbox import Program, Sandbox
from tests.unit.reward_support import left_behind, lives, reward, scorer, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.alone]

NEEDED = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install -y bubblewrap"
)
SQUARES = [{"stdin": "3\n", "stdout": "9\n"}, {"stdin": "4\n", "stdout": "16\n"}]


@pytest.fixture(scope="module")
def box():
    made = Sandbox("bubblewrap")
    made.check()
    return made


def fenced(program, language="python"):
    return f"<think>hm</think>\n```{language}\n{program}\n```"


@pytest.fixture
def marker():
    """What the command lines of a test's own processes have in them, and those of no other."""
    return f"r1ray-{uuid.uuid4().hex}"


def run(box, program, name="main.py", **limits):
    python = Program(argv=[box.python, "-I", f"{{box}}/{name}"], files={name: program.encode()}, stdin=b"in")
    return box.run(python, Limits(**{"wall_s": 5.0, **limits}))


@NEEDED
def test_environment_host_and_processes_are_hidden(box, tmp_path, monkeypatch):
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
def test_writes_outside_fail(box, path):
    outcome = run(box, f"try:\n    open({path!r}, 'w')\nexcept OSError:\n    print('no')")
    assert outcome.stdout == b"no\n"
    assert not os.path.exists("/x")


@NEEDED
def test_no_network(box):
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
def test_no_new_rights(box):
    program = """
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.unshare(0x10000000), libc.setuid(0) if os.getuid() else -1)
"""
    assert run(box, program).stdout.split() == [b"-1", b"-1", b"-1"]


@NEEDED
def test_fork_bomb_is_contained(box, marker):
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
    run(
        box,
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        marker,
        wall_s=1.0,
    )
    assert time.monotonic() - began < 6.0
    wait_for(lambda: left_behind(marker) == [])


@NEEDED
@pytest.mark.parametrize(
    "program",
    [
        "x = []\nwhile True: x.append(bytearray(10**7))",
        "import os\nfor _ in range(12):\n    if os.fork() == 0: break\nx = b'1' * (60 << 20)\nimport time; "
        "time.sleep(30)",
        "import mmap\nm = [mmap.mmap(-1, 1 << 26) for _ in range(64)]\nfor x in m: x.write(b'1' * (1 << 26))",
    ],
)
def test_memory_limit_covers_all_processes(box, program):
    began = time.monotonic()
    assert run(box, program, memory_bytes=256 << 20, wall_s=20.0).reason == "memory"
    assert time.monotonic() - began < 15.0


@NEEDED
def test_memory_outside_processes_is_refused(box):
    """Files without a name, System V's shared memory, pages in pipes, buffers of network sockets, and their like."""
    program = """
import ctypes, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(what, call):
    ctypes.set_errno(0)
    try:
        failed = call() == -1
    except OSError as e:
        failed = e.errno == 1
    print(what, "refused" if failed else "GRANTED")
tried("memfd_create", lambda: os.memfd_create("x"))
tried("shmget", lambda: libc.shmget(0, 20 << 20, 0o1600))
tried("msgget", lambda: libc.msgget(0, 0o1600))
tried("semget", lambda: libc.semget(0, 100, 0o1600))
tried("vmsplice", lambda: libc.vmsplice(0, None, 0, 0))
tried("io_uring_setup", lambda: libc.syscall(425, 8, ctypes.create_string_buffer(200)))
tried("tcp", lambda: socket.socket(socket.AF_INET))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
left, right = socket.socketpair()
left.send(b"x")
print(right.recv(1) + b"")
"""
    said = run(box, program, memory_bytes=100 << 20).stdout.decode().splitlines()
    assert [line.split()[1] for line in said[:-1]] == ["refused"] * 8
    assert said[-1] == "b'x'"


@NEEDED
def test_disk_limits(box):
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
def test_output_limit(box):
    outcome = run(box, "import sys\nwhile True: sys.stderr.write('x' * 10**6)", output_bytes=10**6)
    assert (outcome.reason, len(outcome.stderr)) == ("output", 10**6)


@NEEDED
def test_ignored_signals_and_daemons_are_killed(box, marker):
    deaf = """
import signal, time
for s in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)
while True: time.sleep(1)
"""
    began = time.monotonic()
    assert run(box, deaf, wall_s=0.5).reason == "timeout"
    assert time.monotonic() - began < 4.0
    daemon = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv("/usr/bin/sleep", ["{marker}", "61"])
    os._exit(0)
print("bye")
"""
    assert run(box, daemon).stdout == b"bye\n"
    wait_for(lambda: left_behind(marker) == [])


@NEEDED
def test_killed_worker_ends_its_sandbox(marker):
    from r1ray.rewards.base import Sample

    sleeps = f"import os\nos.execv('/usr/bin/sleep', ['{marker}', '299.5'])"
    with scorer(reward("accuracy", verifier="code", test_timeout_s=300.0, suite_timeout_s=300.0)) as s:
        pending = s.begin(Sample(response=fenced(sleeps), answer=SQUARES))
        wait_for(lambda: left_behind(marker))
        [program] = left_behind(marker)
        guards = [p for p in program.parents() if p.name() == "bwrap"]
    assert guards
    assert pending.result().score.error.startswith("ProcessDied")
    wait_for(lambda: not any(map(lives, [program, *guards])))


KILLED_WHILE_STARTING = """
import os, random, signal, sys, time
from r1ray.rewards.execution.running import Limits
from r1ray.rewards.execution.sandbox import Program, Sandbox

box, moment = Sandbox("bubblewrap"), random.Random(0)
box.check()
for _ in range(80):
    pid = os.fork()
    if pid == 0:
        box.run(Program(argv=["/usr/bin/sleep", sys.argv[1]], files={}), Limits(wall_s=60.0))
        os._exit(1)
    time.sleep(moment.uniform(0.0, 0.03))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@NEEDED
def test_worker_killed_during_a_start_leaves_nothing_behind():
    """Without the look at its starter in `_ALIVE` about one start in five lives on."""
    seconds = f"3557.{uuid.uuid4().int}"
    subprocess.run([sys.executable, "-c", KILLED_WHILE_STARTING, seconds], check=True, timeout=240)
    wait_for(lambda: left_behind(seconds) == [])


def test_missing_bubblewrap_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with scorer(reward("accuracy", verifier="code")) as s:
        with pytest.raises(ConfigError, match="apt-get install -y bubblewrap"):
            s.check()


def test_refused_namespaces_are_named(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr("r1ray.rewards.execution.sandbox._SYSTEM_PATH", str(tmp_path))
    box = Sandbox("bubblewrap")
    box._user = None
    with pytest.raises(ConfigError, match="This machine refuses user namespaces"):
        box.check()


def test_sandbox_none_warns_and_still_limits(caplog):
    box = Sandbox("none")
    box.check()
    assert "UNGUARDED" in caplog.text
    program = Program(
        argv=[sys.executable, "-I", "{box}/main.py"], files={"main.py": b"print(open(__file__).read()[:5])"}
    )
    assert box.run(program, Limits(wall_s=10.0)).stdout == b"print\n"
    slow = Program(argv=["sleep", "30"], files={})
    assert box.run(slow, Limits(wall_s=0.3)).reason == "timeout"
