"""A recipe folder, read once, and whether its claims hold. Stages that have not run have no figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1ray.report.record import RunRecord, load_record
from r1ray.run.metrics import Row
from r1ray.run.policy import EVALUATION, POLICY_KINDS, RECIPE, ancestors, leading_policies
from r1ray.sampling.store import SampleRow, read_shard
from r1ray.util.files import read_json
from r1ray.util.formatting import number

MAX_SAMPLES = 2000
"""Maximum number of samples per stage whose text is analysed: shares to a percent, in seconds."""
MAX_CHARACTERS = 5_000_000
"""Maximum number of characters per stage that are analysed; at least one sample per shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One stage. Producer: `load_recipe`. Consumers: the sections of the recipe's report."""

    name: str
    kind: str
    doc: str
    state: str
    inputs: tuple[str, ...]  # names of stages and inputs, and paths
    seconds: float | None  # wall time; None unless done
    published: str  # published cost, with its source
    lineage: Row  # empty unless done
    run: RunRecord | None  # of rl and sft stages that have started
    results: tuple[Row, ...]  # of an evaluation: one row per benchmark; empty unless done
    mix: Row  # report.json of a sample stage; empty unless done
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the stage is done."""
        return self.state == "done"

    def samples(self) -> Iterator[SampleRow]:
        """Yield its samples; if there are many, the first ones of each shard, so that all sources are included."""
        shards = sorted((self.folder / "samples").glob("*.parquet"))
        for shard in shards:
            left = MAX_CHARACTERS / len(shards)
            for row in islice(read_shard(shard), math.ceil(MAX_SAMPLES / len(shards))):
                yield row
                left -= len(row.response)
                if left <= 0:
                    break

    @property
    def tokens(self) -> float | None:
        """Tokens that the stage sampled or trained on; None if its records do not say."""
        if self.kind == "rl" and self.run is not None:
            size = (self.run.setting("learner.groups_per_step") or 0) * (self.run.setting("rollout.group_size") or 0)
            return size * math.fsum(row.get("length/mean", 0.0) for row in self.run.metrics) or None
        if self.kind == "sft" and self.run is not None:
            return math.fsum(row.get("batch/tokens", 0.0) for row in self.run.metrics) or None
        if self.kind == "sample":
            return _sampled_tokens(self.folder / "samples")
        if self.results:
            return math.fsum(row["length"] * row["problems"] * row["samples"] for row in self.results)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRecord:
    """The content of one recipe folder."""

    name: str
    doc: str
    folder: Path
    seed: int | None
    files: tuple[str, ...]  # the recipe and its overlays
    stages: tuple[StageRecord, ...]  # in the order of the recipe
    claims: tuple[Row, ...]  # as in recipe.json; see r1ray.recipe.parsing
    main: str | None  # the final policy; None: none is finished, or there are several independent ones
    line: frozenset[str]  # the main policy, its ancestors and unfinished descendants; all stages if none is finished

    def stage(self, name: str) -> StageRecord | None:
        """Return the stage called `name`, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def results(self, policy: str) -> tuple[Row, ...]:
        """Return the figures of a policy or an input, one row per benchmark; empty if it was not evaluated."""
        found = self.stage(EVALUATION + policy)
        return found.results if found is not None else ()

    def evaluated(self) -> list[str]:
        """Return the names of evaluated inputs, then of evaluated policies in order."""
        names = [s.name.removeprefix(EVALUATION) for s in self.stages if s.name.startswith(EVALUATION) and s.results]
        known = [stage.name for stage in self.stages]
        return sorted(names, key=lambda name: known.index(name) if name in known else -1)

    def main_line(self, kind: str) -> list[StageRecord]:
        """Return the stages of a kind that led to the main policy, including itself."""
        return [stage for stage in self.stages if stage.kind == kind and stage.name in self.line]

    def students(self) -> list[StageRecord]:
        """Return the policies outside the main line."""
        return [s for s in self.stages if s.kind in POLICY_KINDS and s.name not in self.line]

    @property
    def benchmark(self) -> str | None:
        """The first benchmark, which sentences and tiles refer to."""
        return next(iter(self.benchmarks), None)

    @property
    def benchmarks(self) -> list[str]:
        """All benchmarks, in the order in which they were first evaluated."""
        return list(dict.fromkeys(str(row["benchmark"]) for stage in self.stages for row in stage.results))

    def figure(self, policy: str | None, key: str) -> float | None:
        """Return a figure of a policy on the first benchmark, e.g. accuracy or parts/format; None if it has none."""
        return self.figure_on(self.benchmark, policy, key)

    def figure_on(self, benchmark: str | None, policy: str | None, key: str) -> float | None:
        """Return a figure of a policy on any benchmark; None if it has none or it is no number."""
        row = next((r for r in self.results(policy or "") if r["benchmark"] == benchmark), None)
        first, _, rest = key.partition("/")
        value: Any = None if row is None else row.get(first)
        if rest:
            value = value.get(rest) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def best(self, kind: str | None = None) -> StageRecord | None:
        """Return the student (of a kind) with the highest accuracy on the first benchmark, or None."""
        rated = [(self.figure(s.name, "accuracy"), s) for s in self.students() if kind in (None, s.kind)]
        known = [(value, s) for value, s in rated if value is not None]
        return max(known, key=lambda pair: pair[0], default=(0.0, None))[1]


def is_recipe(folder: Path) -> bool:
    """Return whether `folder` is the folder of a recipe."""
    return (folder / RECIPE).exists()


def load_recipe(folder: Path) -> RecipeRecord:
    """Read a recipe folder in any state. Raises IntegrityError for damaged records."""
    raw = read_json(folder / RECIPE)
    by_name: dict[str, Row] = {str(stage["name"]): stage for stage in raw["stages"]}
    leading = leading_policies(by_name)
    main = leading[0] if len(leading) == 1 else None
    line = _line(main, by_name) if main is not None else set() if leading else set(by_name)
    return RecipeRecord(
        name=str(raw["name"]),
        doc=str(raw.get("doc") or ""),
        folder=folder,
        seed=raw.get("seed"),
        files=tuple(Path(file).name for file in raw.get("files", ())),
        stages=tuple(_stage(folder / name, stage) for name, stage in by_name.items()),
        claims=tuple(raw.get("claims", ())),
        main=main,
        line=frozenset(line),
    )


def _line(main: str, stages: dict[str, Row]) -> set[str]:
    later = {name for name, s in stages.items() if s["state"] != "done" and main in ancestors(name, stages)}
    return ancestors(main, stages) | {main} | later


def _stage(folder: Path, raw: Row) -> StageRecord:
    """Read one stage. Unless it is done, files in its folder may be from an earlier attempt and are ignored."""
    kind, done = str(raw["kind"]), raw["state"] == "done"
    finished = (folder / "lineage.json").exists()  # deleted when a stage starts
    started = kind in POLICY_KINDS and (folder / "run.json").exists() and (done or not finished)
    return StageRecord(
        name=str(raw["name"]),
        kind=kind,
        doc=str(raw.get("doc") or ""),
        state=str(raw["state"]),
        inputs=tuple(str(name).removeprefix("@") for name in raw["inputs"]),
        seconds=raw.get("seconds") if done else None,
        published=str(raw.get("published") or ""),
        lineage=_if_there(folder / "lineage.json") if done else {},
        run=load_record(folder) if started else None,
        results=tuple(_if_there(folder / "results.json").get("rows", ())) if done and kind == "eval" else (),
        mix=_if_there(folder / "report.json") if done and kind == "sample" else {},
        folder=folder,
    )


def _sampled_tokens(folder: Path) -> float | None:
    """Return the tokens of all samples, reading only that column; None if there are none."""
    from pyarrow import compute, parquet

    columns = [parquet.read_table(shard, columns=["tokens"])["tokens"] for shard in folder.glob("*.parquet")]
    return math.fsum(compute.sum(column).as_py() or 0 for column in columns) or None


def _if_there(path: Path) -> Row:
    return read_json(path) if path.exists() else {}


def recipe_figures(folder: Path) -> dict[str, Any]:
    """Return what `r1ray report --json` prints: state and time of each stage, figures of each policy by benchmark."""
    recipe = load_recipe(folder)
    return {
        "main": recipe.main,
        "stages": {s.name: {"kind": s.kind, "state": s.state, "seconds": s.seconds} for s in recipe.stages},
        "policies": {name: {row["benchmark"]: row for row in recipe.results(name)} for name in recipe.evaluated()},
    }


_SIGNS = {"at_least": ">=", "above": ">", "below": "<"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one claim holds. Producer: `verdicts`. Consumer: the command `verify`."""

    name: str
    holds: bool  # false if a figure was not measured
    text: str  # the claim with its figures


def verdicts(recipe: RecipeRecord) -> list[Verdict]:
    """Return a verdict for each claim of recipe.json, in order."""
    return [_verdict(recipe, claim) for claim in recipe.claims]


def _verdict(recipe: RecipeRecord, claim: dict[str, Any]) -> Verdict:
    benchmark, key = claim["benchmark"] or recipe.benchmark, str(claim["figure"])
    bound, margin, relation = claim["bound"], float(claim["margin"]), str(claim["relation"])
    value = recipe.figure_on(benchmark, claim["of"], key)
    other = recipe.figure_on(benchmark, bound, key) if isinstance(bound, str) else float(bound)
    text = f"{key} of {claim['of']} ({_shown(value)}) {_SIGNS[relation]} "
    text += f"{bound} ({_shown(other)})" if isinstance(bound, str) else _shown(other)
    text += f" {'+' if margin > 0 else '-'} {number(abs(margin))}" if margin else ""
    if value is None or other is None:
        return Verdict(name=claim["name"], holds=False, text=f"{text}, on {benchmark or 'no benchmark yet'}")
    limit = other + margin
    holds = {"at_least": value >= limit, "above": value > limit, "below": value < limit}[relation]
    return Verdict(name=claim["name"], holds=holds, text=f"{text}, on {benchmark}")


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
