"""A recorder of metrics for tests."""

from __future__ import annotations

from collections import defaultdict

from r1ray.telemetry.catalogue import CATALOGUE, Metric

Key = tuple[str, tuple[str, ...]]


class MemoryRecorder:
    """Keeps the values by name and labels, in the order of `Metric.labels`; refuses what Ray would refuse."""

    def __init__(self) -> None:
        self.values: dict[Key, float] = defaultdict(float)
        self.observed: dict[str, list[float]] = defaultdict(list)

    def _key(self, metric: Metric, kind: str, labels: dict[str, str]) -> Key:
        assert CATALOGUE[metric.name] is metric
        assert metric.kind == kind
        assert set(labels) == set(metric.labels)
        assert all(isinstance(value, str) for value in labels.values())
        return metric.name, tuple(labels[name] for name in metric.labels)

    def add(self, metric: Metric, value: float = 1.0, **labels: str) -> None:
        assert value >= 0
        self.values[self._key(metric, "counter", labels)] += value

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.values[self._key(metric, "gauge", labels)] = value

    def observe(self, metric: Metric, value: float) -> None:
        self._key(metric, "histogram", {})
        self.observed[metric.name].append(value)
