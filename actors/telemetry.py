"""Export of metrics through Ray: each node's agent serves them to Prometheus (docs/monitoring.md)."""

from __future__ import annotations

import threading

from ray.util import metrics as ray_metrics

from r1ray.telemetry.catalogue import PREFIX, RUN, Metric

_OWN_PREFIX = PREFIX.removeprefix("ray_")


class RayRecorder:
    """A `Recorder` on `ray.util.metrics`, for a process that is connected to Ray. Costs a few microseconds a call."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._lock = threading.Lock()
        self._counters: dict[str, ray_metrics.Counter] = {}
        self._gauges: dict[str, ray_metrics.Gauge] = {}
        self._histograms: dict[str, ray_metrics.Histogram] = {}

    def add(self, metric: Metric, value: float = 1.0, **labels: str) -> None:
        """See `Recorder.add`."""
        with self._lock:
            if metric.name not in self._counters:
                made = ray_metrics.Counter(_OWN_PREFIX + metric.name, metric.doc, (*metric.labels, RUN))
                self._counters[metric.name] = made.set_default_tags({RUN: self._run_id})
        if value > 0:  # Ray refuses 0
            self._counters[metric.name].inc(value, tags=labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """See `Recorder.set`."""
        with self._lock:
            if metric.name not in self._gauges:
                made = ray_metrics.Gauge(_OWN_PREFIX + metric.name, metric.doc, (*metric.labels, RUN))
                self._gauges[metric.name] = made.set_default_tags({RUN: self._run_id})
        self._gauges[metric.name].set(value, tags=labels)

    def observe(self, metric: Metric, value: float) -> None:
        """See `Recorder.observe`."""
        with self._lock:
            if metric.name not in self._histograms:
                made = ray_metrics.Histogram(_OWN_PREFIX + metric.name, metric.doc, list(metric.buckets), (RUN,))
                self._histograms[metric.name] = made.set_default_tags({RUN: self._run_id})
        self._histograms[metric.name].observe(value)
