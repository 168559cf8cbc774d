"""Actors of one kind, as plans count them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Actors of one kind and what each needs. Memory in bytes by item, all of it in the host if the actor has no GPU.

    An engine may have `hosts` of its own: all figures but `count` are of one of them then.
    """

    name: str
    count: int
    cpus: float  # Ray CPUs of each
    gpus: float  # Ray GPUs of each
    resources: dict[str, float]  # custom Ray resources of each
    device: dict[str, float] = field(default_factory=dict)  # GPU memory of each
    host: dict[str, float] = field(default_factory=dict)  # host memory of each
    hosts: int = 1  # hosts of each actor

    @property
    def parts(self) -> int:
        """Places that all actors take together: one on each of their hosts."""
        return self.count * self.hosts
