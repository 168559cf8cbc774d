"""Result of one check of a machine or a cluster, as `r1ray doctor` prints it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result. Producers: the checks in `preflight`. Consumers: `r1ray doctor`, the start of a run on a cluster."""

    what: str
    verdict: Verdict  # error: a run does not work; warning: a part of it does not work, is slow, or is unsafe
    detail: str  # what was found
    meaning: str = ""  # consequence for a run; empty if ok
    fix: str = ""  # what to do; empty if ok
    node: str = ""  # address of the node; empty: this machine, or the cluster as a whole

    def on(self, node: str) -> Finding:
        """The same finding, of `node`."""
        return replace(self, node=node)

    def line(self) -> str:
        """The finding in one line, for messages."""
        where = f"node {self.node}: " if self.node else ""
        return f"{where}{self.what}: {self.detail}: {self.meaning}; {self.fix}"


def ok(what: str, detail: str) -> Finding:
    """A check that passed."""
    return Finding(what=what, verdict="ok", detail=detail)


def warning(what: str, detail: str, *, meaning: str, fix: str) -> Finding:
    """A part of a run does not work, is slow, or is unsafe."""
    return Finding(what=what, verdict="warning", detail=detail, meaning=meaning, fix=fix)


def error(what: str, detail: str, *, meaning: str, fix: str) -> Finding:
    """A run does not work."""
    return Finding(what=what, verdict="error", detail=detail, meaning=meaning, fix=fix)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop a run."""
    return [f for f in findings if f.verdict == "error"]
