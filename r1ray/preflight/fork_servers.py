"""Fork servers of a command: processes that import what its workers need while the command still checks and builds.

A rollout worker imports for 10 s before it can load a model, a learner rank for 6 s. A fork server
(`r1ray.util.fork_server`) does that once, and Ray starts workers as forks of it: the first one finds its modules
imported, and so does each replacement. A recipe starts the servers once for all of its stages, which find them by the
environment variable SERVERS; its stages, commands of their own, are forks of a third server.

Only for workers on this machine that compute on CPUs: forks of a process that has used a GPU cannot use it. Each fork
imports Ray itself, which takes its cluster from the environment at its import.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes
from r1ray.preflight.memory import LEARNER_MMAP_THRESHOLD
from r1ray.util import fork_client
from r1ray.util.parent_death import with_parent_death_signal
from r1ray.util.vllm_environment import CPU_ENVIRONMENT, GPU_ENVIRONMENT, ON_THIS_HOST

SERVERS = "R1RAY_FORK_SERVERS"
"""Environment variable with the sockets of the fork servers of this command: a JSON map of `Imports.key`."""

Kind = Literal["rollout", "learner"]

MODULES: Mapping[Kind, tuple[str, ...]] = {
    "rollout": ("vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker", "actors.receiver", "actors.rollout"),
    "learner": ("deepspeed", "learner.policy", "learner.sft.rank", "learner.preference.rank"),
}
COMMAND_MODULES = ("transformers.models.auto.tokenization_auto", "learner.policy", "r1ray.preflight.prepare")
WORKER_NICENESS = 15
"""As of Ray's workers: Ray's own processes, which start while the servers import, come first."""

NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""With more threads NumPy's OpenBLAS starts them at its import, where OMP_NUM_THREADS counts too.

No command computes with NumPy.
"""

END_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Imports:
    """What the processes of one kind import, and the environment that they need before they do."""

    modules: tuple[str, ...]
    environment: Mapping[str, str]
    niceness: int

    @property
    def key(self) -> str:
        """Equal for two commands whose workers can be forked from the same server."""
        return hashlib.blake2b(
            json.dumps([self.modules, dict(self.environment), self.niceness]).encode(), digest_size=8
        ).hexdigest()


def environment_of(kind: Kind, config: Config) -> dict[str, str]:
    """Environment variables that libraries read when processes of this kind import them."""
    if kind == "rollout":
        return engine_environment(config)
    return {
        "OMP_NUM_THREADS": str(max(1, int(config.learner.num_cpus))),  # also of DeepSpeed's optimiser in host memory
        "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits for another gives its core to the rollout worker
        "MALLOC_MMAP_THRESHOLD_": str(LEARNER_MMAP_THRESHOLD),
    }


def engine_environment(config: Config) -> dict[str, str]:
    """Environment of a rollout worker, which the processes of its engine inherit.

    On several hosts gloo listens on `sync.interface`, or at the address of each host's name if that is null.
    """
    variables = dict(GPU_ENVIRONMENT if config.rollout.num_gpus else CPU_ENVIRONMENT)
    if config.rollout.engine.hosts > 1:
        for name in ON_THIS_HOST:
            variables.pop(name)
        if config.sync.interface is not None:
            variables |= dict.fromkeys(ON_THIS_HOST, config.sync.interface)
    return variables


def imports_of(kind: Kind, config: Config) -> Imports | None:
    """What a fork server for processes of this kind imports; None if they run on other machines or on GPUs, or if vLLM
    itself is to use Ray, which its modules do not find there.
    """
    gpus = config.rollout.num_gpus if kind == "rollout" else config.learner.num_gpus
    engine = config.rollout.engine
    over_ray = kind == "rollout" and (engine.hosts > 1 or "distributed_executor_backend" in engine.extra)
    if config.ray.address is not None or gpus or over_ray:
        return None
    environment = {**environment_of(kind, config), "CUDA_VISIBLE_DEVICES": "", **NO_THREADS}
    return Imports(modules=MODULES[kind], environment=environment, niceness=WORKER_NICENESS)


def of_commands() -> Imports:
    """What every `r1ray` command that trains or samples imports, besides Ray."""
    return Imports(modules=COMMAND_MODULES, environment=NO_THREADS, niceness=0)


def start_fork_servers(commands: Iterable[tuple[Config, Use]]) -> None:
    """Start the fork servers that these commands need and that are not there yet; they end with this process."""
    for config, use in commands:
        for kind in MODULES:
            if kind in processes(config, use) and (imports := imports_of(kind, config)) is not None:
                start_fork_server(imports)


def start_fork_server(imports: Imports) -> None:
    """Start the fork server with these imports if it is not there yet; it ends with this process."""
    servers = _servers()
    if imports.key not in servers:
        os.environ[SERVERS] = json.dumps({**servers, imports.key: _start(imports)})


def python_of(imports: Imports | None) -> str | None:
    """The command that takes the place of Python for a process that needs these imports; None: it imports them itself.

    Without an answering server it is None too, and standard error says so.
    """
    path = None if imports is None else _servers().get(imports.key)
    if path is None:
        return None
    if not _answers(path):
        print(f"warning: the fork server at {path} has died: processes start some seconds slower", file=sys.stderr)
        return None
    return shlex.join([sys.executable, "-IS", fork_client.__file__, path])


def r1ray_command() -> list[str]:
    """What runs `r1ray` when its arguments are appended: forked from the server of commands, if there is one."""
    python = python_of(of_commands())
    return [*([sys.executable] if python is None else shlex.split(python)), "-m", "r1ray"]


def _servers() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(SERVERS, "{}"))
    return found


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:
            return False
    return True


def _start(imports: Imports) -> str:
    """Start a server; returns the path of its socket, in a folder that only this user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="r1ray-fork-"))
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener, (folder / "log").open("wb") as log:
        listener.bind(path)
        listener.listen(64)
        command = [sys.executable, "-m", "r1ray.util.fork_server", str(listener.fileno()), str(imports.niceness)]
        server = subprocess.Popen(
            with_parent_death_signal([*command, "ray", *imports.modules]),
            pass_fds=[listener.fileno()],
            env={**os.environ, **imports.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A Ctrl-C in the terminal is for the command, which still needs its workers. Not a session of its own: in
            # another one than Ray's, niceness would not count for the kernel's scheduler.
            process_group=0,
        )
    atexit.register(partial(_end, server, folder))
    return path


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.terminate()
    try:
        server.wait(END_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(folder, ignore_errors=True)
