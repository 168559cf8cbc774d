"""What the simulation knows of a group and of an engine."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Group:
    """The completions of one prompt."""

    lengths: list[int]
    version: int = 0
    left: int = 0
    reserved: bool = False  # was stale once: a step waits for it


@dataclass(slots=True)
class Engine:
    """One rollout worker: a counter of engine steps, and the steps at which its sequences end."""

    speed: float
    at: float = 0.0  # time up to which `done` is counted
    done: float = 0.0  # engine steps
    running: int = 0  # sequences
    ends: list[tuple[float, int, Group]] = field(default_factory=list)
    waiting: deque[tuple[int, Group]] = field(default_factory=deque)
    groups: dict[int, Group] = field(default_factory=dict)
    event: int = 0  # number of its newest event; older ones are void
    alive: bool = True
    busy_s: float = 0.0
