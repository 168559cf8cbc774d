"""Requests to the nodes of a joined cluster, and the comparison of their reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.errors import ConfigError
from r1ray.preflight.capacity import Resources, demand
from r1ray.preflight.findings import Finding, error, errors, ok, warning
from r1ray.preflight.node import NodeReport, NodeRequest
from r1ray.preflight.roles import Role
from r1ray.preflight.storage import Marker
from r1ray.rewards.registry import build
from r1ray.util.versions import comparable

SKEW_S = 1.0
"""Clocks that differ by more make times in logs, events and `r1ray status` misleading."""
LARGE_SKEW_S = 300.0
"""Clocks that differ by more are refused by AWS and by TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a cluster that is alive. Producer: `r1ray.launch.node_checks`."""

    node_id: str
    name: str  # its address, with a part of its id if another node has the same
    address: str
    resources: Resources

    @property
    def gpus(self) -> int:
        """GPUs that Ray counts."""
        return int(self.resources.get("GPU", 0))


def needs_sandbox(config: Config, use: Use) -> bool:
    """Whether a reward of the run executes programs. Raises ConfigError for rewards that cannot be built."""
    if use in ("sft", "reward-model"):
        return False
    return any(build(reward.name, reward.params).sandboxed for reward in config.rewards)


def requests(
    config: Config,
    use: Use,
    roles: Sequence[Role],
    *,
    thorough: bool,
    run_dir: str,
    marker: Marker | None = None,
    model: bool = True,
) -> Callable[[Resources], NodeRequest]:
    """How to ask a node with given resources for what the actors need that may run on it.

    `run_dir`: an existing folder, the run's own or above it. `model` false: the embedded model is not built yet.
    """
    programs = config.reward_worker.sandbox if needs_sandbox(config, use) else None
    supervised = use in ("sft", "reward-model")

    def request(there: Resources) -> NodeRequest:
        fits = {role.name.split()[0] for role in roles if _fits(role, there)}
        reads = supervised or "rollout" in fits
        gpu = [f"{kind}.num_gpus" for kind in ("learner", "rollout") if kind in fits and _gpus(config, kind)]
        return NodeRequest(
            thorough=thorough,
            model=config.model.path if model and fits & {"learner", "rollout"} else None,
            data=data_files(config) if fits and reads and use != "eval" else {},  # eval writes its own later
            run_dir=run_dir if "learner" in fits else None,
            marker=marker,
            writes="learner" in fits,
            sandbox=programs if "reward" in fits else None,
            gpu=gpu[0] if gpu else None,
        )

    return request


def driver_request(ask: Callable[[Resources], NodeRequest], nodes: Sequence[Node]) -> NodeRequest:
    """The request to the driver's machine, for comparison: model and data of all nodes together."""
    names = {name for node in nodes for name in node.resources}
    everything = {name: max(node.resources.get(name, 0.0) for node in nodes) for name in names}
    return replace(ask(everything), run_dir=None, marker=None, sandbox=None, gpu=None)


def data_files(config: Config) -> dict[str, str]:
    """Key of the configuration -> file or folder, of every source that is one."""
    data = config.data
    sections = {"train": data.train, "evaluation": data.evaluation, "decontaminate_against": data.decontaminate_against}
    return {
        f"data.{section}.{i}.path": source.path
        for section, sources in sections.items()
        for i, source in enumerate(sources)
        if source.kind in ("jsonl", "parquet") and source.path is not None
    }


def compare(here: NodeReport, reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    """What the nodes (by name) found, and in what they differ from the driver's machine `here`."""
    for node, report in reports.items():
        yield from (finding.on(node) for finding in report.findings)
        yield from (finding.on(node) for finding in _versions(here, report))
        if report.model and here.model and report.model != here.model:
            detail = f"another model than the driver's: hash {report.model} there, {here.model} here"
            meaning = "learner and rollout workers would start from different weights"
            yield error("model.path", detail, meaning=meaning, fix="the same model on every node").on(node)
        for key, size in report.data.items():
            if key in here.data and size != here.data[key]:
                detail = f"{size} bytes there, {here.data[key]} here"
                meaning = "workers would read other prompts under the same numbers"
                yield error(key, detail, meaning=meaning, fix="the same file on every node").on(node)


def _versions(here: NodeReport, report: NodeReport) -> Iterator[Finding]:
    ours, theirs = comparable(here.versions), comparable(report.versions)
    differing = {name: theirs.get(name) for name in ours if theirs.get(name) != ours[name]}
    for name, version in differing.items():
        fix = "the same working tree on every node" if name == "r1ray" else f"install {name} {ours[name]} there"
        meaning = "processes of different versions do not understand each other, or compute different values"
        there = version or "missing"
        yield error(f"version of {name}", f"{there} there, {ours[name]} on the driver", meaning=meaning, fix=fix)
    if not differing:
        yield ok("versions", "as on the driver: " + ", ".join(f"{name} {version}" for name, version in ours.items()))


def clock(sent: float, there: float, received: float) -> Finding:
    """Compare a node's clock with the driver's: `there` was read between `sent` and `received`, all in seconds."""
    skew = there - (sent + received) / 2
    surely = max(0.0, abs(skew) - (received - sent) / 2)
    detail = f"{skew:+.3f} s against the driver (measured within {(received - sent) / 2:.3f} s)"
    if surely <= SKEW_S:
        return ok("clock", detail)
    verdict = error if surely > LARGE_SKEW_S else warning
    meaning = "times in logs, events and `r1ray status` cannot be compared"
    if surely > LARGE_SKEW_S:
        meaning += "; TLS and cloud services refuse requests from there"
    return verdict("clock", detail, meaning=meaning, fix="start chrony or systemd-timesyncd on every node")


def refuse_nodes(address: str, findings: Sequence[Finding]) -> None:
    """Raise one ConfigError with every error among the findings; return if there is none."""
    bad = errors(findings)
    if bad:
        lines = "".join(f"\n  {finding.line()}" for finding in bad)
        raise ConfigError(f"{len(bad)} problem{'s' * (len(bad) > 1)} on the nodes of the cluster at {address}:{lines}")


def _fits(role: Role, there: Resources) -> bool:
    return all(there.get(name, 0.0) >= amount for name, amount in demand(role).items())


def _gpus(config: Config, kind: str) -> float:
    return config.learner.num_gpus if kind == "learner" else config.rollout.num_gpus
