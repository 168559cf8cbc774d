"""Programs forked from a process that has imported their modules."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from r1ray.util import fork_client

DEADLINE_S = 30.0
SLEEPER = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1000)\n"
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=[99], daemon=True).start()\n"


@contextmanager
def server(folder: Path, *modules: str, **environment: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "r1ray.util.fork_server", str(listener.fileno()), "15", "hidden", *modules]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], env={**os.environ, **environment}, process_group=0
        )
    try:
        yield path, process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def client(path: Path, script: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-IS", fork_client.__file__, str(path), str(script), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


def script(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text)
    return path


def wait_until_ended(pid: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while psutil.pid_exists(pid):
        assert time.monotonic() < until, f"{pid} still runs"
        time.sleep(0.01)


def test_the_program_is_what_its_client_would_have_become(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text(
        "import os\nPARENT = os.getpid()\ntry:\n    import hidden\nexcept ImportError:\n    hidden = None\n"
    )
    (tmp_path / "hidden.py").write_text("")
    program = script(
        tmp_path,
        "import os, signal, sys\n"
        "import hidden, preloaded\n"
        "assert hidden is not None and preloaded.hidden is None\n"
        "assert __name__ == '__main__'\n"
        "masked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "print(preloaded.PARENT == os.getppid(), sys.argv[1:], os.environ.get('HERE'), os.environ.get('THERE'), "
        "os.getcwd())\n"
        "print(masked, signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, sys.path[0], file=sys.stderr)\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), file=sys.stderr)\n",
    )
    search = os.pathsep.join([str(tmp_path), *sys.path])
    with server(tmp_path, "preloaded", PYTHONPATH=search, THERE="1") as (path, _):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            options = {"cwd": tmp_path, "env": {**os.environ, "HERE": "x"}, "preexec_fn": lambda: os.nice(17)}
            started = client(path, program, "a", "b c", **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        out, err = started.communicate(timeout=DEADLINE_S)
    assert out == f"True ['a', 'b c'] x None {tmp_path}\n"
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 17)
    assert err == f"[<Signals.SIGHUP: 1>] True {tmp_path}\n{niceness}\n"


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1), ("", 0)])
def test_the_client_ends_as_its_program_does(tmp_path: Path, end: str, code: int) -> None:
    with server(tmp_path) as (path, _):
        started = client(path, script(tmp_path, f"import os, sys\n{end}\n"))
        started.communicate(timeout=DEADLINE_S)
        assert started.returncode == code


def test_a_signal_is_the_programs(tmp_path: Path) -> None:
    caught = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))"
    program = script(tmp_path, f"import signal, sys\n{caught}\nprint('ready', flush=True)\nsignal.pause()\n")
    with server(tmp_path) as (path, _):
        started = client(path, program)
        assert started.stdout is not None
        started.stdout.readline()
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=DEADLINE_S)
        assert started.returncode == 5


def test_output_is_unbuffered_as_the_client_would_have_it(tmp_path: Path) -> None:
    program = script(tmp_path, "import time\nprint('line')\ntime.sleep(1000)\n")
    with server(tmp_path) as (path, _):
        started = client(path, program, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        assert started.stdout is not None
        assert started.stdout.readline() == "line\n"
        started.kill()
        started.communicate(timeout=DEADLINE_S)


def test_a_module_runs_as_with_python_m(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import sys\nprint(__name__, sys.argv[1:], sys.path[0])\n")
    with server(tmp_path) as (path, _):
        command = [sys.executable, "-IS", fork_client.__file__, str(path), "-m", "beside", "x"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == f"__main__ ['x'] {tmp_path}\n"


def test_the_program_dies_with_its_client(tmp_path: Path) -> None:
    program = script(tmp_path, SLEEPER)
    with server(tmp_path) as (path, _):
        started = client(path, program)
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert pid != started.pid
        started.kill()
        wait_until_ended(pid)
        started.communicate(timeout=DEADLINE_S)


def test_the_program_dies_with_the_parent_of_its_client(tmp_path: Path) -> None:
    program = script(tmp_path, SLEEPER)
    starter = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with server(tmp_path) as (path, _):
        command = [sys.executable, "-c", starter, sys.executable, "-IS", fork_client.__file__, str(path), str(program)]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        wait_until_ended(pid)
        parent.communicate(timeout=DEADLINE_S)


def test_the_client_ends_with_its_program(tmp_path: Path) -> None:
    program = script(tmp_path, SLEEPER)
    with server(tmp_path) as (path, _):
        started = client(path, program)
        assert started.stdout is not None
        os.kill(int(started.stdout.readline()), signal.SIGKILL)
        started.communicate(timeout=DEADLINE_S)


def test_the_server_survives_the_end_of_a_program_with_its_process_group(tmp_path: Path) -> None:
    """As Ray ends a worker."""
    with server(tmp_path, "json") as (path, process):
        started = client(path, script(tmp_path, SLEEPER))
        assert started.stdout is not None
        os.killpg(os.getpgid(int(started.stdout.readline())), signal.SIGTERM)
        started.communicate(timeout=DEADLINE_S)
        after = client(path, script(tmp_path, "print('served')"))
        assert after.communicate(timeout=DEADLINE_S)[0] == "served\n"
        assert process.poll() is None


def test_programs_outlive_their_server(tmp_path: Path) -> None:
    program = script(tmp_path, SLEEPER)
    with server(tmp_path) as (path, process):
        started = client(path, program)
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        process.kill()
        process.wait(DEADLINE_S)
        assert psutil.pid_exists(pid)
        os.kill(pid, signal.SIGKILL)
        started.communicate(timeout=DEADLINE_S)


def test_without_a_server_the_client_becomes_the_program_and_says_so(tmp_path: Path) -> None:
    program = script(tmp_path, "import os\nprint(os.getpid())\n")
    started = client(tmp_path / "nothing", program)
    out, err = started.communicate(timeout=DEADLINE_S)
    assert int(out) == started.pid
    assert f"no fork server at {tmp_path / 'nothing'}" in err


def test_a_module_that_starts_threads_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[99], daemon=True).start()\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        command = [sys.executable, "-m", "r1ray.util.fork_server", str(listener.fileno()), "15", "hidden", "threaded"]
        path = os.pathsep.join([str(folder), *sys.path])
        done = subprocess.run(
            command,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.strip() == "the module threaded starts threads: no process can be forked from it"


def test_a_client_that_stands_still_does_not_hold_up_the_next_one(tmp_path: Path) -> None:
    with server(tmp_path) as (path, _), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(path))
        silent.send(b"\0")
        started = client(path, script(tmp_path, "print('done')\n"))
        assert started.communicate(timeout=DEADLINE_S)[0] == "done\n"


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\x09{"])
def test_a_client_that_breaks_off_does_not_disturb_the_next_one(tmp_path: Path, sent: bytes) -> None:
    with server(tmp_path) as (path, _):
        with socket.socket(socket.AF_UNIX) as broken:
            broken.connect(str(path))
            broken.send(sent)
        started = client(path, script(tmp_path, "print('done')\n"))
        assert started.communicate(timeout=DEADLINE_S)[0] == "done\n"
