"""Where a recipe's models come from: the data that was made, what each stage cost, lineage."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import yaml

from r1ray.models.card import short_digest, versions
from r1ray.report.markup import Markup, node
from r1ray.report.recipe_record import RecipeRecord, StageRecord
from r1ray.report.tables import section, table, wall_time
from r1ray.run.policy import EVALUATION
from r1ray.util.formatting import number, share


def data(recipe: RecipeRecord) -> list[Markup]:
    """What became of the samples of each sampling stage, by domain; the paper's counts beside the last one."""
    mixed = [stage for stage in recipe.stages if stage.mix]
    return [_mix(stage, beside=stage is mixed[-1]) for stage in mixed]


def _mix(stage: StageRecord, *, beside: bool) -> Markup:
    mix = stage.mix
    domains = [*mix["domains"].items(), ("all", mix["total"])]
    head = ("domain", "prompts", "samples", "correct", "kept", "share", "mean rounds", "mean tokens")
    rows = [
        [
            name,
            *(number(row[k]) for k in ("prompts", "samples", "correct", "kept")),
            share(row["share"]),
            number(row["mean_rounds"]),
            number(row["mean_tokens"]),
        ]
        for name, row in domains
    ]
    known = mix["published"]
    if beside:
        counts = {**known["domains"], "all": known["total"]}
        rows += [
            [f"{name} (published)", "–", "–", "–", f"{count:,}", share(count / known["total"]), "–", "–"]
            for name, count in counts.items()
        ]
    source = node("p", f"Published, not made here: {known['source']}.", class_="note-below") if beside else None
    reasons = [reason for reason in mix["reasons"] if any(reason in row["dropped"] for _, row in domains)]
    dropped = table(
        ("dropped, by the first reason", *(name for name, _ in domains)),
        [
            [reason.replace("_", " "), *(number(row["dropped"].get(reason, 0)) for _, row in domains)]
            for reason in reasons
        ],
    )
    lead = stage.doc or "What was kept of the samples."
    return section(f"Data: {stage.name}", lead, table(head, rows), source, dropped if reasons else None)


def cost(recipe: RecipeRecord) -> Markup:
    """Wall time and tokens of each stage; evaluations together."""
    plain = [stage for stage in recipe.stages if not stage.name.startswith(EVALUATION)]
    rated = [stage for stage in recipe.stages if stage.name.startswith(EVALUATION)]
    total = math.fsum(stage.seconds or 0.0 for stage in recipe.stages)
    rows = [
        [
            s.name,
            s.kind.replace("_", " "),
            _state(s),
            wall_time(s.seconds),
            _part(s.seconds, total),
            number(_whole(s.tokens)),
            s.published,
        ]
        for s in plain
    ]
    if rated:
        seconds = math.fsum(stage.seconds or 0.0 for stage in rated)
        tokens = math.fsum(stage.tokens or 0.0 for stage in rated)
        done = f"{sum(stage.done for stage in rated)} of {len(rated)} done"
        rows.append(
            ["evaluations", "eval", done, wall_time(seconds), _part(seconds, total), number(_whole(tokens)), ""]
        )
    rows.append(["all", "", "", wall_time(total), _part(total, total), "", ""])
    head = ["stage", "kind", "state", "wall time", "share", "tokens", "published cost"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    lead = "Wall time of all attempts, start-up included. Tokens: sampled completions, or what supervised steps went through."
    return section("Cost, stage by stage", lead, table(head, rows, texts=3))


def _part(seconds: float | None, total: float) -> str:
    return share(seconds / total) if seconds is not None and total else "–"


def _state(stage: StageRecord) -> str:
    return stage.state if stage.done or stage.run is None else f"{stage.state}, {stage.run.state}"


def _whole(value: float | None) -> float | None:
    return None if not value else float(round(value))


def lineage(recipe: RecipeRecord) -> Markup:
    """What each stage was made from, with hashes, and its configuration."""
    rows = []
    for stage in recipe.stages:
        record = stage.lineage
        if not record:
            continue
        started = f"{datetime.fromtimestamp(record['started'], UTC):%Y-%m-%d %H:%M} UTC" if "started" in record else "–"
        reads = [
            f"{name.removeprefix('@').rsplit('/', 1)[-1]} {short_digest(v.get('digest'))}"
            for name, v in record["inputs"].items()
        ]
        made = short_digest(record["output"].get("digest"))
        rows.append(
            [stage.name, ", ".join(reads), made, str(record.get("seed", "–")), started, number(record.get("attempts"))]
        )
    facts = node("p", _facts(recipe), class_="note-below")
    lead = "Digests of everything that went into a stage and of what came out, as its lineage.json has them."
    if not rows:
        return section("Lineage", lead, facts)
    head = ("stage", "made from", "output", "seed", "started", "attempts")
    configs = [_config(stage) for stage in recipe.stages if stage.lineage.get("config")]
    return section("Lineage", lead, table(head, rows, texts=3), facts, *configs)


def _facts(recipe: RecipeRecord) -> str:
    ran_on = versions(stage.lineage.get("code", {}) for stage in recipe.stages)
    told = f"Recipe: {', '.join(recipe.files) or recipe.name}, seed {recipe.seed}."
    return f"{told} Versions: {ran_on}." if ran_on else told


def _config(stage: StageRecord) -> Markup:
    text = yaml.safe_dump(stage.lineage["config"], sort_keys=False, allow_unicode=True, width=120)
    return node("details", node("summary", f"configuration of {stage.name}"), node("pre", text))
