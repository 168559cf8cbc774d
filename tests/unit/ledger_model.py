"""What the ledger must do, in the plainest words: a list of groups and a list of batches."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Group:
    """One row of the model. An index's current group is the last one in `Model.groups` that has it."""

    group_id: str
    index: int
    worker: str
    version: int
    deadline: float
    state: str = "leased"
    cause: str = ""
    suspicious: bool = False
    final: bool = False
    step: int | None = None


@dataclass
class Model:
    """`size` is B; the other numbers are the settings of the same meaning."""

    size: int
    staleness: int
    attempts: int
    returns: int
    requeue_stale: bool
    reserve_after: int
    dynamic: bool
    groups: dict[str, Group] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)  # in order of completion
    batches: list[list[str]] = field(default_factory=list)
    trained: int = 0  # steps

    def current(self) -> dict[int, Group]:
        return {g.index: g for g in self.groups.values()}

    def queued(self) -> list[int]:
        return sorted(i for i, g in self.current().items() if g.state == "dropped" and not g.final)

    def drop(self, g: Group, cause: str, final: bool = False) -> None:
        g.state, g.cause, g.final = "dropped", cause, final

    def lease(self, worker: str, version: int, n: int, deadline: float) -> list[str]:
        live = sum(g.state != "dropped" for g in self.groups.values())
        room = max(0, min(n, (self.staleness + version + 1) * self.size - live))
        indices = self.queued()[:room]
        fresh = len(self.current())
        indices += range(fresh, fresh + room - len(indices))
        leased = []
        for index in indices:
            attempt = 1 + sum(g.index == index for g in self.groups.values())
            g = Group(f"{index}-{attempt}", index, worker, version, deadline)
            self.groups[g.group_id] = g
            leased.append(g.group_id)
        return leased

    def welcome(self, g: Group) -> bool:
        handed_back = g.state == "dropped" and g.cause == "returned"
        return g.state == "leased" or (handed_back and not g.final and self.current()[g.index] is g)

    def hand_back(self, g: Group, *, suspicious: bool) -> None:
        g.suspicious = suspicious
        times = sum(o.index == g.index and o.cause == "returned" and o.suspicious for o in self.groups.values())
        self.drop(g, "returned", final=suspicious and times + 1 >= self.returns)

    def blame(self, g: Group) -> None:
        failures = sum(o.index == g.index and o.cause == "failed" for o in self.groups.values())
        self.drop(g, "failed", final=failures + 1 >= self.attempts)

    def put(self, group_id: str, kind: str) -> str:
        g = self.groups[group_id]
        if not self.welcome(g):
            return "late" if g.cause == "returned" else "duplicate"
        if kind == "error":
            self.blame(g)
            return "failed"
        if kind == "equal" and self.dynamic:
            self.drop(g, "no_signal", final=True)
            return "no_signal"
        g.state, g.cause = "scored", ""
        self.ready.append(group_id)
        return "accepted"

    def reserved(self, g: Group) -> bool:
        return sum(o.index == g.index and o.cause == "stale" for o in self.groups.values()) >= self.reserve_after

    def take(self) -> list[str] | None:
        step = len(self.batches)
        for group_id in list(self.ready):
            if step - self.groups[group_id].version > self.staleness:
                self.ready.remove(group_id)
                self.drop(self.groups[group_id], "stale", final=not self.requeue_stale)
        if len(self.ready) < self.size:
            return None
        order = sorted(self.ready, key=lambda i: (not self.reserved(self.groups[i]), self.groups[i].version))
        batch = order[: self.size]  # sorted keeps the order of completion among equals
        for version in range(step - self.staleness, step + 1):
            flying = sum(
                g.state == "leased" and step - self.staleness <= g.version <= version and self.reserved(g)
                for g in self.groups.values()
            )
            places = self.size * (version + self.staleness - step)  # for groups of such policies, in later steps
            if flying > places and any(
                not self.reserved(self.groups[i]) or self.groups[i].version > version for i in batch
            ):
                return None
        self.ready = [g for g in self.ready if g not in batch]
        self.batches.append(batch)
        for group_id in batch:
            self.groups[group_id].state, self.groups[group_id].step = "taken", step
        return batch
