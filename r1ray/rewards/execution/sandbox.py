"""Foreign programs under bubblewrap: what they may see, and use.

A program sees the system read-only, a private /tmp and what it is given; no network, no other process, no environment, none
of the host's files beyond /usr and the interpreter's bin and lib. It may use limited memory, processor time, processes and
space; when the wall-clock limit is over, or its first process ends, all of its processes are killed, whatever they did to stay
alive.

With `sandbox: none` the limits of a single process stay, and nothing else does: for those whose container is the sandbox.
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
from r1ray.rewards.execution.running import Limits, Outcome, Running, supervise
from r1ray.rewards.execution.syscalls import seccomp_filter

logger = logging.getLogger(__name__)

_NOBODY = 65534
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_TMP_BYTES = 64 << 20
_OF_PYTHON = ("bin", "lib", "lib64")
"""The folders of its prefix that an interpreter needs."""
_SHM_BYTES = 16 << 20
_INSTALL = "install it (Debian, Ubuntu: apt-get install -y bubblewrap; Fedora: dnf install bubblewrap)"
_NONE = "or set reward_worker.sandbox = none where the whole container is a sandbox that may be lost"
_ENVIRONMENT = {"PATH": _SYSTEM_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - private inside
_LAUNCH = 'ulimit -c 0 -n 64 "$1" "$2" -f "$3" -u "$4" && ulimit -S -t "$5" || exit 126; shift 5; exec "$@"'
"""Run by bash inside, so that the limits count what is inside alone."""
_ALIVE = (
    'alive=$1; shift; until read -r _ _ state _ </proc/1/stat && [ "$state" = S ]; do :; done; '
    'read -t 0 -u "$alive" && exit 126; exec {alive}<&-; '
)
"""Run before it under bubblewrap, whose processes ask the kernel to die with their parents one after the other while they
start: those that ask an instant after its death live on, with no one to end them. Once the first process inside waits, all
have asked. Then the starter must still hold its end of the pipe `alive`; a pipe that has ended can be read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run. In `argv`, `{box}` is the folder where `files` lie."""

    argv: Sequence[str]
    files: Mapping[str, bytes]  # name -> content, all executable, none writable
    stdin: bytes = b""
    fds: Sequence[int] = ()  # descriptors that stay open, under the same numbers
    reserves: bool = False  # it reserves address space that it does not use (node): limit its data instead


class Sandbox:
    """Starts programs inside. Example: `Sandbox("bubblewrap").run(Program(argv=["/bin/echo", "hi"], files={}), Limits())`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._bwrap = shutil.which("bwrap", path=_SYSTEM_PATH + ":" + os.environ.get("PATH", ""))
        # As root, a program would escape the limit on processes, which does not bind root.
        self._user = _NOBODY if kind == "bubblewrap" and os.geteuid() == 0 else None

    def check(self) -> None:
        """Run a program inside. Raises ConfigError, with what to do, where that does not work."""
        if self.kind == "none":
            logger.warning(
                "sandbox: none - programs that the model writes run UNGUARDED, with all rights of this process, on this machine"
            )
        elif self._bwrap is None:
            raise ConfigError(f"bubblewrap, which guards model-written programs, is not here: {_INSTALL}, {_NONE}")
        outcome = self.run(Program(argv=[self.python, "-I", "-c", "print(6 * 7)"], files={}), Limits(wall_s=20.0))
        if outcome.stdout.strip() != b"42":
            said = (
                outcome.stderr.decode(errors="replace").strip()[-300:] or f"{outcome.reason}, exit code {outcome.code}"
            )
            raise ConfigError(f"the sandbox {self.kind} does not work here: {said}. {_advice(said)}")

    @property
    def python(self) -> str:
        """The interpreter for programs in Python: this one's base, or the system's where only that can be read inside."""
        base = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
        refused = ""
        for path in (base, "/usr/local/bin/python3", "/usr/bin/python3"):
            if not os.access(path, os.X_OK):
                continue
            if self._user is not None and not _readable_by_others(Path(path)):
                refused = refused or f"the user nobody, who runs them, cannot read {path} (chmod o+x on its folders)"
            elif _exposes(Path(path).parent.parent):
                refused = refused or f"{path} lies in {Path(path).parent.parent} itself, a home that they must not see"
            else:
                return path
        reason = refused or f"{base} is not there"
        raise ConfigError(f"no Python for programs in the sandbox: {reason}; install the system's python3")

    def tool(self, *names: str) -> str | None:
        """The first of these programs that the system has."""
        found = (shutil.which(name, path=_SYSTEM_PATH) for name in names)
        return next((path for path in found if path), None)

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run one program to its end or to its limits."""
        with ExitStack() as stack:
            running = self.start(program, limits, stack)
            supervise([running], limits.wall_s)
            return running.outcome

    def start(self, program: Program, limits: Limits, stack: ExitStack) -> Running:
        """Start a program, to be supervised; leaving `stack` kills it with all of its children, and cleans up."""
        command = (
            self._inside(program, limits, stack)
            if self.kind == "bubblewrap"
            else self._unguarded(program, limits, stack)
        )
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.env,
            pass_fds=[*program.fds, *command.fds],
            cwd=command.cwd,
            start_new_session=True,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        return stack.enter_context(Running(process, program.stdin, limits, guarded=self.kind == "bubblewrap"))

    def _inside(self, program: Program, limits: Limits, stack: ExitStack) -> _Command:
        fds = {name: stack.enter_context(_in_memory(content)) for name, content in program.files.items()}
        data = [x for name, fd in fds.items() for x in ("--perms", "0555", "--ro-bind-data", str(fd), f"/box/{name}")]
        assert self._bwrap is not None
        calls = stack.enter_context(_in_memory(seccomp_filter()))
        alive = stack.enter_context(_pipe())
        options = [*_namespaces(), *_system(self.python), *data, "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
        options += ["--seccomp", str(calls)]
        argv = [arg.replace("{box}", "/box") for arg in program.argv]
        # Its own environment is empty too: the program can read that of bubblewrap's first process under /proc.
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
    """Everything of its own, no way to more rights, no environment but a harmless one; it dies with us."""
    apart = ["--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent", "--clearenv"]
    return apart + [x for key, value in _ENVIRONMENT.items() for x in ("--setenv", key, value)]


@functools.cache
def _system(python: str) -> list[str]:
    """The file system inside: /usr and the interpreter read-only, small private folders for what a program writes."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    for name in ("/etc/alternatives", "/etc/ld.so.cache"):  # where /usr points to, and finds its libraries by
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
    """The reading end of a pipe whose other end this process holds, and those that it forks."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """A descriptor of a nameless file with this content, at its start."""
    fd = os.memfd_create("box")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _exposes(prefix: Path) -> bool:
    """Whether an interpreter's prefix is the home folder of somebody, whose own bin and lib it would share."""
    homes = {Path.home(), *_homes()} - {Path("/"), Path("/usr")}
    return prefix.resolve() in {home.resolve() for home in homes}


@functools.cache
def _homes() -> frozenset[Path]:
    return frozenset(Path(user.pw_dir) for user in pwd.getpwall())


def _readable_by_others(path: Path) -> bool:
    real = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in real.parents) and bool(real.stat().st_mode & 0o005 == 0o005)


def _advice(said: str) -> str:
    if "Unknown option" in said:
        return f"This bubblewrap is older than 0.8: {_INSTALL}, {_NONE}"
    if any(word in said for word in ("namespace", "uid map", "Operation not permitted", "Permission denied")):
        return (
            "User namespaces are refused to ordinary users here. Allow them (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0; in Docker a seccomp profile "
            f"that lets clone and unshare pass), {_NONE}"
        )
    return f"See what bubblewrap says, {_NONE}"
