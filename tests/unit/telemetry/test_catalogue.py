"""The list of metrics: names by Prometheus' conventions, and each metric recorded by the process that owns it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from r1ray.telemetry import catalogue
from r1ray.telemetry.catalogue import CATALOGUE, Metric

ROOT = Path(__file__).parents[3]
HOMES = {"driver": "r1ray/control/run_telemetry.py", "queue": "actors/queue.py"}
SCORING = ("actors/reward.py", "r1ray/rewards/scorer.py")


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=lambda m: m.name)
def test_names_and_labels_are_valid_and_histograms_have_buckets(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert not metric.name.endswith("_total")  # the exporter adds it
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
    assert catalogue.RUN not in metric.labels
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(b for b in metric.buckets if b > 0)
    assert metric.doc[0].islower() or metric.doc[0] in "K1"


def test_exported_names_follow_what_ray_does() -> None:
    assert catalogue.STEPS.series == ("ray_r1ray_steps_total",)
    assert catalogue.LOSS.series == ("ray_r1ray_loss",)
    assert catalogue.SYNC_SECONDS.series == tuple(f"ray_r1ray_sync_seconds_{x}" for x in ("bucket", "sum", "count"))


def mentioned(path: str) -> set[str]:
    """The constants of the catalogue that a module uses."""
    tree = ast.parse((ROOT / path).read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_each_metric_is_recorded_where_its_owner_does() -> None:
    constants = {value.name: name for name, value in vars(catalogue).items() if isinstance(value, Metric)}
    scoring = mentioned(SCORING[0]) | mentioned(SCORING[1])
    for metric in CATALOGUE.values():
        used = scoring if metric.owner == "reward worker" else mentioned(HOMES[metric.owner])
        assert constants[metric.name] in used, metric.name
