"""What one node of a cluster reports about itself: the part of `r1ray doctor --cluster` that runs on every node.

    driver: NodeRequest --(Ray)--> node: inspect_node --(Ray)--> driver: NodeReport -> nodes.compare

A start on a joined cluster skips the checks that take seconds (`thorough` false).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from r1ray.config.sources import CONF_DIR
from r1ray.errors import ConfigError
from r1ray.models.folder import model_hash
from r1ray.preflight.findings import Finding, error, ok
from r1ray.preflight.host import limits, ports, sandbox, token
from r1ray.preflight.packages import gpus, memory, packages, unwanted
from r1ray.preflight.storage import SPEED_BYTES, Marker, shared, storage
from r1ray.preflight.system import System, this_system
from r1ray.util.versions import node_versions

QUICK_BYTES = 4096
_READ_BYTES = 65536
ABSOLUTE = "an absolute path on storage that every node mounts, or a copy at the same path on every node"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """What one node is to check. Producer: `nodes.requests`. Consumer: `inspect_node`."""

    thorough: bool  # with packages, hardware, limits and the speed of storage, which take seconds
    joins: bool = True  # the run joins a cluster
    model: str | None = None  # folder; None: no actor that may run here reads it
    data: Mapping[str, str] = field(default_factory=dict)  # key of the configuration -> file or folder
    run_dir: str | None = None  # folder to try; None: none is known
    marker: Marker | None = None
    writes: bool = False  # an actor that may run here writes into the run folder
    sandbox: str | None = None  # kind that a reward needs here; None: none needs one, or that is not known
    gpu: str | None = None  # key of the configuration that gives GPUs to an actor here


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node found. Producer: `inspect_node`. Consumer: `nodes.compare`."""

    host: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]
    model: str = ""  # hash of sizes and weights; empty if it was not asked for or cannot be read
    data: dict[str, int] = field(default_factory=dict)  # key of the configuration -> bytes


def inspect_node(request: NodeRequest) -> NodeReport:
    """Check the machine that this process runs on."""
    return inspect(request, this_system(request.sandbox or "bubblewrap"))


def inspect(request: NodeRequest, system: System) -> NodeReport:
    """Check the machine behind `system`."""
    findings: list[Finding] = []
    if request.thorough:
        findings += machine_findings(system, joins=request.joins)
    if request.thorough or request.sandbox is not None:
        findings.append(sandbox(system, needed=True if request.sandbox is not None else None))
    if request.gpu is not None and system.kind == "cpu":
        meaning = f"{request.gpu} is above 0, and the actors of that kind may run here"
        findings.append(
            error("packages", "the CPU build of vLLM is installed", meaning=meaning, fix="make install GPU=1")
        )
    if request.run_dir is not None:
        speed = SPEED_BYTES if request.thorough else QUICK_BYTES
        findings += storage(system, Path(request.run_dir), speed_bytes=speed)
    if request.marker is not None:
        findings.append(shared(request.marker, needed=request.writes))
    found, model = _model(request.model)
    sizes: dict[str, int] = {}
    return NodeReport(
        host=socket.gethostname(),
        versions=node_versions(),
        findings=(*findings, *found, *_data(request.data, sizes)),
        model=model,
        data=sizes,
    )


def machine_findings(system: System, *, joins: bool) -> list[Finding]:
    """The checks that need no configuration."""
    pins = CONF_DIR / "pins" / f"{system.kind}.txt"
    return [
        *packages(system, pins),
        *unwanted(system),
        *memory(system),
        *gpus(system),
        *limits(system),
        *token(system, joins=joins),
        *ports(system),
    ]


def _model(path: str | None) -> tuple[list[Finding], str]:
    if path is None:
        return [], ""
    try:
        found = model_hash(Path(path))
    except (ConfigError, OSError) as e:
        fix = ABSOLUTE if not Path(path).is_absolute() else "mount or copy the model there"
        return [error("model.path", str(e), meaning="learner or rollout workers here cannot load it", fix=fix)], ""
    return [ok("model.path", f"{path} is readable")], found


def _data(data: Mapping[str, str], sizes: dict[str, int]) -> Iterator[Finding]:
    """Read the beginning of each file; puts the size of each into `sizes`."""
    for key, path in data.items():
        try:
            sizes[key] = _size(Path(path))
        except OSError as e:
            fix = ABSOLUTE if not Path(path).is_absolute() else "mount or copy the file there"
            yield error(key, f"{path}: {e.strerror}", meaning="workers here cannot read their prompts", fix=fix)
    if sizes:
        yield ok("data", f"{len(sizes)} of {len(data)} sources are readable")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, of which the beginning can be read."""
    files = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        with file.open("rb") as opened:
            os.read(opened.fileno(), _READ_BYTES)
    return sum(file.stat().st_size for file in files)
