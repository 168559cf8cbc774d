"""The interface through which plain code records metrics. `actors.telemetry.RayRecorder` exports them."""

from __future__ import annotations

from typing import Protocol

from r1ray.telemetry.catalogue import Metric


class Recorder(Protocol):
    """Thread-safe. `labels` are those of `Metric.labels`; the recorder adds the label `run`."""

    def add(self, metric: Metric, value: float = 1.0, **labels: str) -> None:
        """Increase a counter by `value` >= 0."""
        ...

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, metric: Metric, value: float) -> None:
        """Add one value to a histogram."""
        ...


class SilentRecorder:
    """Records nothing: for processes without monitoring."""

    def add(self, metric: Metric, value: float = 1.0, **labels: str) -> None:
        """See `Recorder.add`."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """See `Recorder.set`."""

    def observe(self, metric: Metric, value: float) -> None:
        """See `Recorder.observe`."""


SILENT = SilentRecorder()
