"""Dashboard and alert rules: every query uses metrics and labels that exist; every alert fires and has a remedy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1ray.telemetry.catalogue import CATALOGUE, PREFIX, RUN

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "conf" / "observability"
RULES = MONITORING / "alerts.yml"
TESTS = Path(__file__).parent / "alerts_test.yaml"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

PLACES = [os.environ["PATH"], str(ROOT / ".venv" / "promtool" / "usr" / "bin")]
PROMTOOL = shutil.which("promtool", path=os.pathsep.join(PLACES))

SERIES = {name: metric for metric in CATALOGUE.values() for name in metric.series}
SELECTOR = re.compile(rf"({PREFIX}\w+)(?:{{([^}}]*)}})?")
GROUPING = re.compile(r"by \(([^)]*)\)")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def wrong_names(query: str) -> Iterator[str]:
    """Metrics that do not exist, and labels that the metrics of the query do not have."""
    allowed: set[str] = {RUN}
    for name, selectors in SELECTOR.findall(query):
        if name not in SERIES:
            yield name
            continue
        own = {*SERIES[name].labels, RUN} | ({"le"} if name.endswith("_bucket") else set())
        allowed |= own
        yield from set(LABEL.findall(selectors)) - own
    for labels in GROUPING.findall(query):
        yield from {label.strip() for label in labels.split(",")} - allowed


def test_the_check_finds_wrong_names() -> None:
    query = 'sum by (part, shoe) (rate(ray_r1ray_step_seconds_total{run="a",hat="b"}[5m])) + ray_r1ray_nothing{x="y"}'
    assert sorted(wrong_names(query)) == ["hat", "ray_r1ray_nothing", "shoe"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_queries_metrics_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert SELECTOR.search(target["expr"]), target["expr"]
        assert list(wrong_names(target["expr"])) == []
        assert 'run="$run"' in target["expr"]


def test_every_metric_has_a_panel() -> None:
    queries = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown = {SERIES[name].name for name, _ in SELECTOR.findall(queries)}
    assert set(CATALOGUE) - shown == set()


def test_the_dashboard_has_ids_of_its_own_and_no_panel_covers_another() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_queries_metrics_that_exist_is_tested_and_has_a_remedy(rule: dict[str, Any]) -> None:
    assert SELECTOR.search(rule["expr"])
    assert list(wrong_names(rule["expr"])) == []
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"].startswith("run {{ $labels.run }}")
    assert f"### {rule['alert']}\n" in (ROOT / "docs" / "troubleshooting.md").read_text()
    assert rule["alert"] in TESTS.read_text()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: make .venv/promtool, or Debian's package prometheus")
@pytest.mark.parametrize("check", [("check", "rules", RULES), ("test", "rules", TESTS)], ids=["syntax", "firing"])
def test_promtool_accepts_the_rules(check: tuple[str | Path, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_in_the_docs_lists_every_metric() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(ray_r1ray_\w+)` \| (.*) \|$", page, flags=re.MULTILINE))
    expected = {m.exported: " | ".join((m.kind, ", ".join(m.labels), m.doc)) for m in CATALOGUE.values()}
    assert rows == expected
