"""A fleet of fake workers."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from r1ray.control.fleet import Fleet, FleetSettings
from r1ray.control.health import HealthLimits
from tests.unit.scripted import FakeHandle


class World:
    """A fleet whose time and workers the test moves by hand."""

    def __init__(self, workers: int = 2, budget: int = 2) -> None:
        self.now = 0.0
        self.remotes: dict[str, FakeHandle] = {}
        self.stats: dict[str, dict[str, float]] = {}
        self.readies: dict[str, Future[Any]] = {}
        self.nodes: dict[str, str] = {}  # worker -> its node, if that matters
        self.released: list[tuple[str, bool]] = []  # and whether it was drained
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ended: list[tuple[str, float]] = []  # hosts, and the seconds that they have
        self.problem = ""
        settings = FleetSettings(
            workers=workers,
            max_workers=3,
            restart_budget=budget,
            max_missed_syncs=3,
            limits=HealthLimits(start_s=100.0, suspect_s=4.0, dead_s=10.0),
            drain_s=30.0,
        )
        self.fleet = Fleet(
            settings,
            spawn=self._spawn,
            release=lambda name, drained: self.released.append((name, drained)),
            on_event=lambda kind, **fields: self.events.append((kind, fields)),
            host_ends=self._host_ends,
            clock=lambda: self.now,
        )
        self.fleet.tick()

    def _spawn(self, name: str) -> tuple[FakeHandle, Future[Any]]:
        rest = {"short_of_memory": 0.0, "idle_s": 0.0, "busy_s": 0.0}
        self.stats[name] = {"tokens": 0.0, "stuck_s": 0.0, "warm": 1.0, **rest}
        self.remotes[name] = FakeHandle(name, stats=lambda: dict(self.stats[name]), drain=lambda seconds: None)
        self.readies[name] = Future()
        return self.remotes[name], self.readies[name]

    def _host_ends(self, node: str, seconds: float) -> str:
        self.ended.append((node, seconds))
        return self.problem

    def ready(self, *names: str) -> None:
        for name in names:
            self.readies[name].set_result(
                {
                    "place": {"pid": 1, "node": self.nodes.get(name, "n")},
                    "evaluation": {"heldout": 7},
                    "left_out": {"a": {"too_long": 2}},
                }
            )
        self.fleet.tick()

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.fleet.tick()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]
