"""Sections of a recipe page: corrections, language, benchmarks, students, data, cost and lineage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from r1ray.models.card import short_digest, versions, with_error
from r1ray.report.html import Markup, join, meter, node, section, table, wall_time
from r1ray.report.recipe_charts import Leg
from r1ray.report.recipe_record import RecipeRecord, StageRecord
from r1ray.report.texts import PURE, RULE, Correction, TextStats, corrections
from r1ray.run.policy import EVALUATION
from r1ray.util.formatting import number, share
from r1ray.util.responses import ReflectiveWords
from r1ray.util.yaml_text import write_yaml

MAX_CORRECTIONS = 4
CONTEXT = 700
"""Characters of a response that are shown on each side of the word."""

_FIGURE_COLUMNS = ("accuracy", "consensus", "format", "language", "length, tokens")


def corrections_section(over: Sequence[Leg], found: Mapping[str, TextStats], words: ReflectiveWords) -> Markup | None:
    """Return the first responses with a correction: of training, then of the evaluations."""
    blocks: list[Markup] = []
    for leg in over:
        for row, made in corrections(leg.run.transcripts, words, MAX_CORRECTIONS - len(blocks)):
            blocks.append(
                _corrected(leg.name, f"step {row['step']:,}", row["prompt"], row["text"], row["tokens"], made)
            )
    for name, wording in found.items():
        for sample, made in wording.corrections[: MAX_CORRECTIONS - len(blocks)]:
            question = sample.messages[-1]["content"]
            blocks.append(_corrected(name, "evaluation", question, sample.response, sample.tokens, made))
    lead = f"Reflective words: {', '.join(words.words)}. {RULE}"
    if not blocks:
        none = node("p", "No analysed response has a correction.", class_="note-below")
        return section("Self-corrections", lead, none) if over else None
    return section("Self-corrections", lead, *blocks)


def _corrected(name: str, place: str, prompt: str, text: str, tokens: int, made: Correction) -> Markup:
    start, end = max(0, made.start - CONTEXT), min(len(text), made.end + CONTEXT)
    left = ("… " if start else "") + text[start : made.start]
    right = text[made.end : end] + (" …" if end < len(text) else "")
    shown = join([left, node("mark", text[made.start : made.end]), right])
    question = prompt if len(prompt) <= CONTEXT else prompt[:CONTEXT] + " …"
    body = node(
        "div",
        node("div", question, class_="mono prompt"),
        node("div", shown, class_="mono plain"),
        node("div", node("b", f"from {made.before} to {made.after}"), f"  ·  {tokens} tokens", class_="score"),
        class_="sample",
    )
    return node("div", node("h3", name, node("br"), place), body, class_="step")


def language(found: Mapping[str, TextStats]) -> Markup | None:
    """Return language mixing and reflection of each evaluated policy."""
    rows = [
        [name, meter(w.target), share(w.mixed), share(w.reflective), share(w.corrected), number(w.samples)]
        for name, w in found.items()
        if w.samples
    ]
    if not rows:
        return None
    lead = (
        "Share of the words in the thinking that are in the language of the question, measured as by the language "
        "reward "
        f"(without formulas and code). A response below {share(PURE)} counts as mixed. From the evaluation samples."
    )
    head = ("policy", "words in the target language", "mixed responses", "with a reflective word", "self-corrected")
    return section("Language and reflection by stage", lead, table((*head, "samples analysed"), rows))


def benchmarks(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> Markup | None:
    """Return the figures of each evaluated policy on each benchmark."""
    rows = []
    several = len({row["benchmark"] for stage in recipe.stages for row in stage.results}) > 1
    for policy in recipe.evaluated():
        for row in recipe.results(policy):
            cells = [
                policy,
                str(row["benchmark"]),
                with_error(row["accuracy"], row["accuracy_se"]),
                with_error(row.get("consensus"), row.get("consensus_se")),
                share(row["parts"].get("format")),
                share(found[policy].by_source.get(str(row["benchmark"])) if policy in found else None),
                number(row["length"]),
                share(row["truncated"]),
                f"{number(row['problems'])} × {row['samples']}",
            ]
            rows.append(cells if several else [cells[0], *cells[2:]])
    if not rows:
        return None
    head = ["policy", "benchmark", *_FIGURE_COLUMNS, "truncated", "problems"]
    if not several:
        del head[1]
    what = "" if several else f" on {recipe.benchmark}"
    lead = (
        f"Each policy{what}. Accuracy: mean over samples (pass@1) with its standard error over problems. Consensus: "
        "majority vote over the samples of a problem."
    )
    return section("Benchmarks by stage", lead, table(head, rows, texts=2 if several else 1))


def students(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> Markup | None:
    """Return distilled students next to students trained by reinforcement learning."""
    shown = [stage for stage in recipe.students() if recipe.results(stage.name)]
    if not shown:
        return None
    rows = []
    for stage in shown:
        made = "reinforcement learning" if stage.kind == "rl" else "distilled"
        for name in recipe.benchmarks:
            if any(row["benchmark"] == name for row in recipe.results(stage.name)):
                pure = found[stage.name].by_source.get(name) if stage.name in found else None
                figures = _figures(recipe, stage.name, name, pure)
                rows.append([stage.name, made, _origin(recipe, stage), name, *figures, wall_time(stage.seconds)])
    if {stage.kind for stage in shown} == {"rl", "sft"}:
        title = "Distillation compared with reinforcement learning"
        lead = "Small models, fine-tuned on samples of the large model or trained by reinforcement learning."
    elif shown[0].kind == "sft":
        title, lead = "Distilled students", "Small models, fine-tuned on samples of a large one."
    else:
        title, lead = "Students trained by reinforcement learning", "Small models, trained without a teacher."
    head = ("student", "method", "trained from", "benchmark", *_FIGURE_COLUMNS, "wall time")
    return section(title, lead, table(head, rows, texts=4))


def _figures(recipe: RecipeRecord, policy: str, benchmark: str, language: float | None) -> list[str]:
    def of(key: str) -> float | None:
        return recipe.figure_on(benchmark, policy, key)

    errors = [with_error(of(key), of(f"{key}_se")) for key in ("accuracy", "consensus")]
    return [*errors, share(of("parts/format")), share(language), number(of("length"))]


def _origin(recipe: RecipeRecord, stage: StageRecord) -> str:
    return ", ".join(name.rsplit("/", 1)[-1] for name in stage.inputs)


def published(recipe: RecipeRecord) -> Markup | None:
    """Return published figures on the benchmarks of this recipe, marked as published."""
    by_benchmark = {
        str(row["benchmark"]): row.get("published") or [] for stage in recipe.stages for row in stage.results
    }
    rows = [
        [f"{p['model']} (published)", name, share(p["accuracy"]), share(p.get("consensus")), str(p["source"])]
        for name, each in by_benchmark.items()
        for p in each
    ]
    if not rows:
        return None
    lead = "Published by others, not measured here. v1: arXiv 2501.12948v1; N: the Nature version, s41586-025-09422-z."
    head = ("model", "benchmark", "accuracy", "consensus of 64", "source")
    return section("Published figures", lead, table(head, rows, texts=2))


def data(recipe: RecipeRecord) -> list[Markup]:
    """Return what was kept of each sampling stage, by domain; the last one with the paper's counts."""
    mixed = [stage for stage in recipe.stages if stage.mix]
    return [_mix(stage, with_published=stage is mixed[-1]) for stage in mixed]


def _mix(stage: StageRecord, *, with_published: bool) -> Markup:
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
    if with_published:
        counts = {**known["domains"], "all": known["total"]}
        rows += [
            [f"{name} (published)", "–", "–", "–", f"{count:,}", share(count / known["total"]), "–", "–"]
            for name, count in counts.items()
        ]
    source = node("p", f"Published counts: {known['source']}.", class_="note-below") if with_published else None
    reasons = [reason for reason in mix["reasons"] if any(reason in row["dropped"] for _, row in domains)]
    dropped = table(
        ("dropped, by first reason", *(name for name, _ in domains)),
        [
            [reason.replace("_", " "), *(number(row["dropped"].get(reason, 0)) for _, row in domains)]
            for reason in reasons
        ],
    )
    lead = stage.doc or "Samples that were kept and dropped."
    return section(f"Data: {stage.name}", lead, table(head, rows), source, dropped if reasons else None)


def cost(recipe: RecipeRecord) -> Markup:
    """Return wall time and tokens of each stage, with the evaluations in one row."""
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
    lead = "Wall time includes start-up and all attempts. Tokens: sampled completions, or tokens trained on by SFT."
    return section("Cost by stage", lead, table(head, rows, texts=3))


def _part(seconds: float | None, total: float) -> str:
    return share(seconds / total) if seconds is not None and total else "–"


def _state(stage: StageRecord) -> str:
    return stage.state if stage.done or stage.run is None else f"{stage.state}, {stage.run.state}"


def _whole(value: float | None) -> float | None:
    return None if not value else float(round(value))


def lineage(recipe: RecipeRecord) -> Markup:
    """Return the inputs and output of each stage with digests, and its configuration."""
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
    lead = "Digests of the inputs and the output of each stage, from its lineage.json."
    if not rows:
        return section("Lineage", lead, facts)
    head = ("stage", "inputs", "output", "seed", "started", "attempts")
    configs = [_config(stage) for stage in recipe.stages if stage.lineage.get("config")]
    return section("Lineage", lead, table(head, rows, texts=3), facts, *configs)


def _facts(recipe: RecipeRecord) -> str:
    ran_on = versions(stage.lineage.get("code", {}) for stage in recipe.stages)
    text = f"Recipe: {', '.join(recipe.files) or recipe.name}, seed {recipe.seed}."
    return f"{text} Versions: {ran_on}." if ran_on else text


def _config(stage: StageRecord) -> Markup:
    text = write_yaml(stage.lineage["config"], width=120)
    return node("details", node("summary", f"configuration of {stage.name}"), node("pre", text))
