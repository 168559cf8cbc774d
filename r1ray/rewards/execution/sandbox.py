"""Sandbox for untrusted programs, built on bubblewrap.

A program sees the system read-only, a private /tmp and its own files. It sees no network, no other
process, no environment and no file of the host outside /usr and the interpreter's bin and lib. Its
memory, processor time, processes and disk space are limited. When the wall-clock limit is reached,
or its first process ends, all of its processes are killed; none can escape.

With `sandbox: none` only the limits on single processes apply. It is for containers that are a
sandbox themselves.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.rewards.execution.running import Limits, Outcome, Running, Streams, supervise
from r1ray.rewards.execution.syscalls import seccomp_filter

logger = logging.getLogger(__name__)

_NOBODY = 65534
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_TMP_BYTES = 64 << 20
_OF_PYTHON = ("bin", "lib", "lib64")
"""The folders that an interpreter needs of its prefix."""
_SHM_BYTES = 16 << 20
_INSTALL = "install it (Debian, Ubuntu: apt-get install -y bubblewrap; Fedora: dnf install bubblewrap)"
_NONE = "or set reward_worker.sandbox = none if the whole container is a sandbox that may be lost"
_ENVIRONMENT = {"PATH": _SYSTEM_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - private inside
_LAUNCH = 'ulimit -c 0 -n 64 "$1" "$2" -f "$3" -u "$4" && ulimit -S -t "$5" || exit 126; shift 5; exec "$@"'
"""Run by bash inside the sandbox, so that the limits do not count processes outside it."""
_ALIVE = (
    'alive=$1; shift; until read -r _ _ state _ </proc/1/stat && [ "$state" = S ]; do :; done; '
    'read -t 0 -u "$alive" && exit 126; exec {alive}<&-; '
)
"""Run before `_LAUNCH` under bubblewrap, so that nothing outlives this process.

While they start, bubblewrap's processes one after the other request a parent-death signal from the kernel. A process
whose parent dies before its request would survive. All requests are made once the first process inside sleeps. Then the
pipe `alive` is checked: it is open while this process lives, and at its end, which makes it readable, afterwards.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command with its files. In `argv`, `{box}` stands for the folder that holds `files`."""

    argv: Sequence[str]
    files: Mapping[str, bytes]  # name -> content, all executable, none writable
    stdin: bytes = b""
    fds: Sequence[int] = ()  # descriptors to keep open, under the same numbers
    reserves: bool = False  # reserves address space that it does not use (node): limit its data segment instead


class Sandbox:
    """Starts programs in the sandbox.

    Example: `Sandbox("bubblewrap").run(Program(argv=["/bin/echo", "hi"], files={}), Limits())`.
    """

    def __init__(self, kind: str) -> None:
        """`kind`: bubblewrap or none, see reward_worker.sandbox."""
        self.kind = kind
        self._bwrap = shutil.which("bwrap", path=_SYSTEM_PATH + ":" + os.environ.get("PATH", ""))
        # Programs do not run as root: the limit on processes does not apply to root.
        self._user = _NOBODY if kind == "bubblewrap" and os.geteuid() == 0 else None

    def check(self) -> None:
        """Run a small program in the sandbox. Raises ConfigError, with how to fix it, if that does not work."""
        if self.kind == "none":
            logger.warning(
                "sandbox: none - model-written programs run UNGUARDED on this machine, with all rights of this process"
            )
        elif self._bwrap is None:
            raise ConfigError(
                f"bubblewrap, the sandbox of model-written programs, is not installed: {_INSTALL}, {_NONE}"
            )
        outcome = self.run(Program(argv=[self.python, "-I", "-c", "print(6 * 7)"], files={}), Limits(wall_s=20.0))
        if outcome.stdout.strip() != b"42":
            stderr = outcome.stderr.decode(errors="replace").strip()[-300:]
            message = stderr or f"{outcome.reason}, exit code {outcome.code}"
            raise ConfigError(f"the sandbox {self.kind} does not work on this machine: {message}. {_advice(message)}")

    @property
    def python(self) -> str:
        """Path of the interpreter for programs in Python: the base of this one, else the system's.

        Raises ConfigError if neither can be read inside the sandbox.
        """
        base = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
        refused = ""
        for path in (base, "/usr/local/bin/python3", "/usr/bin/python3"):
            if not os.access(path, os.X_OK):
                continue
            if self._user is not None and not _readable_by_others(Path(path)):
                refused = refused or f"the user nobody, which runs them, cannot read {path} (chmod o+x on its folders)"
            elif _exposes(Path(path).parent.parent):
                refused = refused or f"{path} is in the home folder {Path(path).parent.parent}, which they must not see"
            else:
                return path
        reason = refused or f"{base} does not exist"
        raise ConfigError(f"no Python for programs in the sandbox: {reason}; install the system's python3")

    def tool(self, *names: str) -> str | None:
        """Path of the first of these programs that is installed, or None."""
        found = (shutil.which(name, path=_SYSTEM_PATH) for name in names)
        return next((path for path in found if path), None)

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run one program until it ends or reaches a limit."""
        with ExitStack() as stack:
            running = self.start(program, limits, stack)
            supervise([running], limits.wall_s)
            return running.outcome

    def start(self, program: Program, limits: Limits, stack: ExitStack) -> Running:
        """Start a program, for `supervise`. Closing `stack` kills it with all of its children, and cleans up."""
        command = (
            self._inside(program, limits, stack)
            if self.kind == "bubblewrap"
            else self._unguarded(program, limits, stack)
        )
        streams, theirs = Streams.open(self._user)
        try:
            process = subprocess.Popen(
                command.argv,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                env=command.env,
                pass_fds=[*program.fds, *command.fds],
                cwd=command.cwd,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        except BaseException:
            streams.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        return stack.enter_context(Running(process, streams, program.stdin, limits, guarded=self.kind == "bubblewrap"))

    def _inside(self, program: Program, limits: Limits, stack: ExitStack) -> _Command:
        fds = {name: stack.enter_context(_in_memory(content)) for name, content in program.files.items()}
        data = [x for name, fd in fds.items() for x in ("--perms", "0555", "--ro-bind-data", str(fd), f"/box/{name}")]
        assert self._bwrap is not None
        calls = stack.enter_context(_in_memory(seccomp_filter()))
        alive = stack.enter_context(_pipe())
        options = [*_namespaces(), *_system(self.python), *data, "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
        options += ["--seccomp", str(calls)]
        argv = [arg.replace("{box}", "/box") for arg in program.argv]
        # bubblewrap's environment is empty too: a program can read that of bubblewrap's first
        # process in /proc.
        launch = _launch(argv, program, limits, before=_ALIVE, first=(str(alive),))
        return _Command(argv=[self._bwrap, *options, "--", *launch], env={}, fds=[*fds.values(), calls, alive])

    def _unguarded(self, program: Program, limits: Limits, stack: ExitStack) -> _Command:
        box = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r1ray-box-")))
        for name, content in program.files.items():
            (box / name).parent.mkdir(parents=True, exist_ok=True)
            (box / name).write_bytes(content)
            (box / name).chmod(0o555)
        argv = [arg.replace("{box}", str(box)) for arg in program.argv]
        return _Command(argv=_launch(argv, program, limits), env=_ENVIRONMENT, cwd=str(box))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    argv: list[str]
    env: dict[str, str]
    fds: Sequence[int] = ()
    cwd: str = "/"


def _namespaces() -> list[str]:
    """Options for namespaces of its own, no way to gain rights, a minimal environment, and to die with this process."""
    apart = ["--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent", "--clearenv"]
    return apart + [x for key, value in _ENVIRONMENT.items() for x in ("--setenv", key, value)]


@functools.cache
def _system(python: str) -> list[str]:
    """Options for the file system: /usr and the interpreter read-only, small private folders to write to."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    for name in ("/etc/alternatives", "/etc/ld.so.cache"):  # targets of links in /usr, and the index of its libraries
        options += ["--ro-bind-try", name, name]
    prefix = Path(python).parent.parent
    if prefix != Path("/") and not prefix.is_relative_to("/usr"):
        for path in (str(prefix / name) for name in _OF_PYTHON):
            options += ["--ro-bind-try", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    return [*options, "--remount-ro", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108


def _launch(
    argv: list[str], program: Program, limits: Limits, *, before: str = "", first: Sequence[str] = ()
) -> list[str]:
    memory = ("-d" if program.reserves else "-v", str(limits.memory_bytes >> 10))
    numbers = (max(1, limits.file_bytes >> 10), limits.processes, limits.cpu_s)
    return ["bash", "-c", before + _LAUNCH, "bash", *first, *memory, *map(str, numbers), *argv]


@contextmanager
def _pipe() -> Iterator[int]:
    """Reading end of a pipe. This process holds the other end, and so do the processes that it forks."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Descriptor of an anonymous file with this content, positioned at its start."""
    fd = os.memfd_create("box")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _exposes(prefix: Path) -> bool:
    """Whether an interpreter's prefix is a user's home folder, whose bin and lib would become visible inside."""
    homes = {Path.home(), *_homes()} - {Path("/"), Path("/usr")}
    return prefix.resolve() in {home.resolve() for home in homes}


@functools.cache
def _homes() -> frozenset[Path]:
    return frozenset(Path(user.pw_dir) for user in pwd.getpwall())


def _readable_by_others(path: Path) -> bool:
    real = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in real.parents) and bool(real.stat().st_mode & 0o005 == 0o005)


def _advice(message: str) -> str:
    if "Unknown option" in message:
        return f"This bubblewrap is older than 0.8: {_INSTALL}, {_NONE}"
    if any(word in message for word in ("namespace", "uid map", "Operation not permitted", "Permission denied")):
        return (
            "This machine refuses user namespaces to ordinary users. Allow them (sysctl "
            "kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0; in Docker a seccomp "
            "profile "
            f"that lets clone and unshare pass), {_NONE}"
        )
    return f"See the message of bubblewrap, {_NONE}"
