"""What a recipe's policies do: turns, language, benchmarks, students, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from r1ray.models.card import with_error
from r1ray.report.markup import Markup, join, node
from r1ray.report.recipe_charts import Leg
from r1ray.report.recipe_record import RecipeRecord, StageRecord
from r1ray.report.reflection import RULE, Turn, turns
from r1ray.report.tables import meter, section, table, wall_time
from r1ray.report.wording import PURE, Wording
from r1ray.util.formatting import number, share
from r1ray.util.responses import ReflectiveWords

TURNS = 4
AROUND = 700
"""Characters of a response that are shown on each side of the word."""


def turned(over: Sequence[Leg], found: Mapping[str, Wording], words: ReflectiveWords) -> Markup | None:
    """The first responses in which a reflective word turns the answer right: of training, then of the evaluations."""
    blocks: list[Markup] = []
    for leg in over:
        for row, made in turns(leg.run.transcripts, words, TURNS - len(blocks)):
            blocks.append(_turned(leg.name, f"step {row['step']:,}", row["prompt"], row["text"], row["tokens"], made))
    for name, wording in found.items():
        for sample, made in wording.turns[: TURNS - len(blocks)]:
            question = sample.messages[-1]["content"]
            blocks.append(_turned(name, "evaluation", question, sample.response, sample.tokens, made))
    lead = f"Counted are: {', '.join(words.words)}. {RULE}"
    if not blocks:
        none = node("p", "No response that was looked at has such a turn.", class_="note-below")
        return section("Where it reconsiders", lead, none) if over else None
    return section("Where it reconsiders", lead, *blocks)


def _turned(name: str, place: str, prompt: str, text: str, tokens: int, made: Turn) -> Markup:
    start, end = max(0, made.start - AROUND), min(len(text), made.end + AROUND)
    left = ("… " if start else "") + text[start : made.start]
    right = text[made.end : end] + (" …" if end < len(text) else "")
    shown = join([left, node("mark", text[made.start : made.end]), right])
    question = prompt if len(prompt) <= AROUND else prompt[:AROUND] + " …"
    body = node(
        "div",
        node("div", question, class_="mono prompt"),
        node("div", shown, class_="mono plain"),
        node("div", node("b", f"from {made.before} to {made.after}"), f"  ·  {tokens} tokens", class_="score"),
        class_="sample",
    )
    return node("div", node("h3", name, node("br"), place), body, class_="step")


def language(found: Mapping[str, Wording]) -> Markup | None:
    """Language mixing by stage."""
    rows = [
        [name, meter(w.target), share(w.mixed), share(w.reflective), share(w.turned), number(w.samples)]
        for name, w in found.items()
        if w.samples
    ]
    if not rows:
        return None
    lead = (
        "Share of the words of the thinking that are in the language of the question, counted as the reward does "
        f"(formulas and code do not count); a response below {share(PURE)} is mixed. From the evaluations' samples."
    )
    head = ("policy", "words in the target language", "mixed responses", "with a reflective word", "turned right by it")
    return section("Language and reflection, stage by stage", lead, table((*head, "samples looked at"), rows))


def benchmarks(recipe: RecipeRecord, found: Mapping[str, Wording]) -> Markup | None:
    """Every evaluated policy on every benchmark."""
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
    head = [
        "policy",
        "benchmark",
        "accuracy",
        "consensus",
        "format",
        "language",
        "length, tokens",
        "truncated",
        "problems",
    ]
    if not several:
        del head[1]
    what = "" if several else f" on {recipe.benchmark}"
    lead = (
        f"Each policy{what}: accuracy is the mean over samples (pass@1) with its standard error over problems, consensus the "
        "majority vote over the samples of a problem."
    )
    return section("Benchmarks, stage by stage", lead, table(head, rows, texts=2 if several else 1))


def students(recipe: RecipeRecord, found: Mapping[str, Wording]) -> Markup | None:
    """Students that learned from the samples of a larger model beside students trained by reinforcement learning."""
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
                rows.append([stage.name, made, _beginning(recipe, stage), name, *figures, wall_time(stage.seconds)])
    if {stage.kind for stage in shown} == {"rl", "sft"}:
        title = "Distillation against reinforcement learning"
        lead = "The same small models, taught by the samples of the large one or by their own trial and error."
    elif shown[0].kind == "sft":
        title, lead = "Distilled students", "Small models, taught by the samples of a large one."
    else:
        title, lead = "Students trained by reinforcement learning", "Small models, taught by their own trial and error."
    head = ("student", "how", "made from", "benchmark", "accuracy", "consensus", "format", "language", "length, tokens")
    return section(title, lead, table((*head, "wall time"), rows, texts=4))


def _figures(recipe: RecipeRecord, policy: str, benchmark: str, language: float | None) -> list[str]:
    def of(key: str) -> float | None:
        return recipe.figure_on(benchmark, policy, key)

    errors = [with_error(of(key), of(f"{key}_se")) for key in ("accuracy", "consensus")]
    return [*errors, share(of("parts/format")), share(language), number(of("length"))]


def _beginning(recipe: RecipeRecord, stage: StageRecord) -> str:
    return ", ".join(name.rsplit("/", 1)[-1] for name in stage.inputs)


def published(recipe: RecipeRecord) -> Markup | None:
    """What others measured on the benchmarks of this recipe, marked as such."""
    told = {str(row["benchmark"]): row.get("published") or [] for stage in recipe.stages for row in stage.results}
    rows = [
        [f"{p['model']} (published)", name, share(p["accuracy"]), share(p.get("consensus")), str(p["source"])]
        for name, each in told.items()
        for p in each
    ]
    if not rows:
        return None
    lead = "Not measured here. v1: arXiv 2501.12948v1; N: the Nature version, s41586-025-09422-z."
    head = ("model", "benchmark", "accuracy", "consensus of 64", "source")
    return section("Published figures", lead, table(head, rows, texts=2))
