"""Sections of a run page below the charts: responses, table of figures, run details, events."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from r1ray.report.figures import Figure
from r1ray.report.html import Markup, copyable, escape, join, node
from r1ray.report.record import RunRecord
from r1ray.run.metrics import Row
from r1ray.util.formatting import duration, number
from r1ray.util.responses import pieces

SAMPLED_STEPS = 5
SAMPLES_PER_STEP = 2
SHOWN_CHARACTERS = 700
"""Longer texts are folded. Beyond twenty times this length they are truncated, with a note."""


def samples(run: RunRecord) -> Markup | None:
    """Return responses of a few steps from first to last: the first ones kept, not selected."""
    steps = sorted({row["step"] for row in run.transcripts})
    if not steps:
        return None
    last = len(steps) - 1
    shown = sorted({steps[round(i * last / (SAMPLED_STEPS - 1))] for i in range(SAMPLED_STEPS)})
    blocks = []
    for step in shown:
        rows = [row for row in run.transcripts if row["step"] == step][:SAMPLES_PER_STEP]
        pair = node("div", *map(_sample, rows), class_="pair")
        blocks.append(node("div", node("h3", f"Step {step:,}"), pair, class_="step"))
    lead = "Sampled during training: the first responses kept of each step, not selected. Thinking is shown in grey."
    return node("section", node("h2", "Sampled responses"), node("p", lead, class_="sub"), *blocks)


def before_and_after(run: RunRecord) -> Markup | None:
    """Return the responses of the first and the last evaluated policy to the same held-out prompts, side by side."""
    source = run.sources[0] if run.sources else None
    rows = [row for row in run.heldout_transcripts if row["source"] == source]
    steps = sorted({row["step"] for row in rows})
    if len(steps) < 2:
        return None
    by_policy = {step: {row["prompt_id"]: row for row in rows if row["step"] == step} for step in (steps[0], steps[-1])}
    before, after = by_policy.values()
    blocks = [
        node("div", node("div", _sample(row), _sample(after[prompt]), class_="pair"), class_="step")
        for prompt, row in before.items()
        if prompt in after
    ]
    lead = (
        f"Responses of policy {steps[0]:,} (left) and policy {steps[-1]:,} (right) to the first problems of {source}, "
        "not selected."
    )
    return node("section", node("h2", "Before and after"), node("p", lead, class_="sub"), *blocks)


def _sample(row: Row) -> Markup:
    parts = [f"{name.replace('_', ' ')} {number(value)}" for name, value in row["parts"].items()]
    facts = "  ·  ".join([*parts, f"{row['tokens']} tokens", row["finish_reason"]])
    return node(
        "div",
        node("div", _folded(row["prompt"]), class_="mono prompt"),
        *(node("div", _folded(text), class_=f"mono {kind}") for kind, text in pieces(row["text"])),
        node("div", node("b", f"reward {number(row['reward'])}"), "  ·  ", facts, class_="score"),
        class_="sample",
    )


def _folded(text: str) -> Markup:
    if len(text) <= SHOWN_CHARACTERS:
        return escape(text)
    kept = text[: 20 * SHOWN_CHARACTERS]
    cut = f"\n[truncated: {len(text) - len(kept):,} more characters]" if len(kept) < len(text) else ""
    summary = node("summary", f"all {len(text):,} characters")
    return join([text[:SHOWN_CHARACTERS] + " …", node("details", summary, kept + cut)])


def only_step(run: RunRecord) -> Markup:
    """Return the metrics of a run with a single step, which no chart can show."""
    (row,) = run.metrics
    rows = [
        node("tr", node("th", name, scope="row"), node("td", number(value)))
        for name, value in row.items()
        if name not in ("step", "time")
    ]
    half = (len(rows) + 1) // 2
    tables = [node("table", *part) for part in (rows[:half], rows[half:]) if part]
    lead = "Charts appear after the second step."
    columns = node("div", *tables, class_="columns values")
    return node("section", node("h2", "The first step"), node("p", lead, class_="sub"), columns)


def table_of_figures(figures: Sequence[Figure]) -> Markup:
    """Return all figures of the run in two columns, with buttons that copy them."""
    rows = [node("tr", node("th", f.label, scope="row"), node("td", f.text)) for f in figures if f.value is not None]
    half = (len(rows) + 1) // 2
    tables = [node("table", *part, class_="numbers", data_copy=True) for part in (rows[:half], rows[half:]) if part]
    return node("section", node("h2", "Figures"), copyable(node("div", *tables, class_="columns")))


def facts(run: RunRecord) -> Markup:
    """Return the run's configuration, versions and machine."""
    digest = hashlib.sha256(run.config_text.encode()).hexdigest()
    start = run.starts[-1] if run.starts else {}
    rows: list[tuple[str, str | None]] = [
        ("Run", run.identity.run_id),
        ("Created", f"{datetime.fromtimestamp(run.identity.created, UTC):%Y-%m-%d %H:%M} UTC"),
        ("Model", run.setting("model.path")),
        ("Algorithm", _algorithm(run)),
        ("Trained on", _recording(run)),
        ("Held-out sources", ", ".join(run.sources)),
        ("Configuration", f"sha256 {digest[:16]}"),
        ("Fingerprint", f"vocabulary {run.identity.vocab_hash}, configuration {run.identity.config_hash}"),
        ("Versions", _pairs({"r1ray": run.identity.r1ray, **start.get("versions", {})})),
        ("Machine", _pairs(start.get("machine", {}))),
    ]
    table = node(
        "table",
        *(node("tr", node("th", name, scope="row"), node("td", value)) for name, value in rows if value),
        class_="facts",
    )
    config = node("details", node("summary", "config.yaml"), node("pre", run.config_text))
    return node("section", node("h2", "Run details"), node("div", table, class_="bar"), config)


def _algorithm(run: RunRecord) -> str | None:
    if run.identity.use == "sft":
        return f"supervised fine-tuning, {run.setting('sft.batch_size')} conversations per step"
    if run.identity.use == "reward-model":
        kind = run.setting("reward_model.kind")
        return f"{kind} reward model, {run.setting('reward_model.batch_size')} rows per step"
    loss = run.setting("algorithm.loss")
    groups, size = run.setting("learner.groups_per_step"), run.setting("rollout.group_size")
    shape = f"{groups} prompts of {size} responses per step" if groups and size else None
    return ", ".join(filter(None, [loss, shape])) or None


def _recording(run: RunRecord) -> str | None:
    """Where the groups of a replay come from."""
    event = next((event for event in run.events if event["kind"] == "replaying"), None)
    if event is None:
        return None
    last = event["first_step"] + event["steps"] - 1
    return f"groups of the recorded run {event['run_id']} ({event['run']}), steps {event['first_step']:,} to {last:,}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def events(run: RunRecord) -> Markup | None:
    """Return the events in order; a long list is folded."""
    if not run.events:
        return None
    began = run.events[0]["time"]
    rows = []
    for event in run.events:
        fields = {k: v for k, v in event.items() if k not in ("time", "kind", "versions", "machine")}
        detail = ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in fields.items())
        at = duration(event["time"] - began)
        kind = str(event["kind"]).replace("_", " ")
        rows.append(node("tr", node("td", at), node("td", kind), node("td", detail)))
    counts = Counter(str(event["kind"]).replace("_", " ") for event in run.events)
    summary = ", ".join(f"{n}\u00d7 {kind}" if n > 1 else kind for kind, n in counts.items())
    table = node("table", *rows, class_="events")
    body = table if len(rows) <= 12 else node("details", node("summary", f"all {len(rows)} events"), table)
    return node("section", node("h2", "Events"), node("p", summary, class_="sub"), node("div", body, class_="bar"))
