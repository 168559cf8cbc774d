"""A recipe folder, read once: everything that its report is made of. Stages that have not run yet are there without figures."""

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

MOST_SAMPLES = 2000
"""Samples of a stage whose text is looked at: enough for shares to a percent, and a page is made in seconds."""
MOST_CHARACTERS = 5_000_000
"""The same of their text, for models that think long; at least one sample of a shard is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One stage. Producer: `load_recipe`. Consumers: the sections of the recipe's report."""

    name: str
    kind: str
    doc: str
    state: str
    inputs: tuple[str, ...]  # names of stages and inputs, and paths
    seconds: float | None  # wall time, None before the end
    published: str  # what it cost elsewhere, with its source
    lineage: Row  # empty before the end
    run: RunRecord | None  # of rl and sft stages that have begun
    results: tuple[Row, ...]  # of an evaluation: a row a benchmark; none before the end
    mix: Row  # report.json of a sample stage; empty before the end
    folder: Path

    @property
    def done(self) -> bool:
        return self.state == "done"

    def samples(self) -> Iterator[SampleRow]:
        """What it sampled; of many samples the first ones of every shard, so that all sources are there."""
        shards = sorted((self.folder / "samples").glob("*.parquet"))
        for shard in shards:
            left = MOST_CHARACTERS / len(shards)
            for row in islice(read_shard(shard), math.ceil(MOST_SAMPLES / len(shards))):
                yield row
                left -= len(row.response)
                if left <= 0:
                    break

    @property
    def tokens(self) -> float | None:
        """Tokens that it sampled or trained on, as far as its records say; None where they say nothing."""
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
    """What stands in one recipe folder."""

    name: str
    doc: str
    folder: Path
    seed: int | None
    files: tuple[str, ...]  # the recipe and its overlays
    stages: tuple[StageRecord, ...]  # in their order
    claims: tuple[Row, ...]  # what its policies are to reach; see r1ray.recipe.claims
    main: str | None  # the policy that the recipe came to; None: none is finished, or several stand side by side
    line: frozenset[
        str
    ]  # the main policy, all that went into it, and what is being made of it; without a finished one all

    def stage(self, name: str) -> StageRecord | None:
        """The stage called `name`; None where there is none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def results(self, policy: str) -> tuple[Row, ...]:
        """The figures of a policy or an input, a row a benchmark; none where it was not evaluated."""
        found = self.stage(EVALUATION + policy)
        return found.results if found is not None else ()

    def evaluated(self) -> list[str]:
        """Names of the policies and inputs that were evaluated, in order; what the recipe began from first."""
        names = [s.name.removeprefix(EVALUATION) for s in self.stages if s.name.startswith(EVALUATION) and s.results]
        known = [stage.name for stage in self.stages]
        return sorted(names, key=lambda name: known.index(name) if name in known else -1)

    def main_line(self, kind: str) -> list[StageRecord]:
        """The stages of a kind that the main policy stands on, itself included."""
        return [stage for stage in self.stages if stage.kind == kind and stage.name in self.line]

    def students(self) -> list[StageRecord]:
        """Trained policies beside the main line."""
        return [s for s in self.stages if s.kind in POLICY_KINDS and s.name not in self.line]

    @property
    def benchmark(self) -> str | None:
        """The first benchmark: the one that sentences speak of."""
        return next(iter(self.benchmarks), None)

    @property
    def benchmarks(self) -> list[str]:
        """All benchmarks, in the order in which they were first evaluated."""
        return list(dict.fromkeys(str(row["benchmark"]) for stage in self.stages for row in stage.results))

    def figure(self, policy: str | None, key: str) -> float | None:
        """A figure of a policy on the first benchmark, e.g. accuracy or parts/format; None where it has none, or no number."""
        return self.figure_on(self.benchmark, policy, key)

    def figure_on(self, benchmark: str | None, policy: str | None, key: str) -> float | None:
        """The same on another benchmark."""
        row = next((r for r in self.results(policy or "") if r["benchmark"] == benchmark), None)
        first, _, rest = key.partition("/")
        value: Any = None if row is None else row.get(first)
        if rest:
            value = value.get(rest) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def best(self, kind: str | None = None) -> StageRecord | None:
        """The student (of a kind) with the highest accuracy on the first benchmark; None where none is evaluated."""
        rated = [(self.figure(s.name, "accuracy"), s) for s in self.students() if kind in (None, s.kind)]
        known = [(value, s) for value, s in rated if value is not None]
        return max(known, key=lambda pair: pair[0], default=(0.0, None))[1]


def is_recipe(folder: Path) -> bool:
    """Whether a recipe was run in `folder`."""
    return (folder / RECIPE).exists()


def load_recipe(folder: Path) -> RecipeRecord:
    """Read a recipe folder, finished or not. Raises IntegrityError for records that are damaged."""
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
    """What the stage came to where it is done. What lies in its folder before that is of an earlier go."""
    kind, done = str(raw["kind"]), raw["state"] == "done"
    finished = (folder / "lineage.json").exists()  # it goes when a stage begins
    begun = kind in POLICY_KINDS and (folder / "run.json").exists() and (done or not finished)
    return StageRecord(
        name=str(raw["name"]),
        kind=kind,
        doc=str(raw.get("doc") or ""),
        state=str(raw["state"]),
        inputs=tuple(str(name).removeprefix("@") for name in raw["inputs"]),
        seconds=raw.get("seconds") if done else None,
        published=str(raw.get("published") or ""),
        lineage=_if_there(folder / "lineage.json") if done else {},
        run=load_record(folder) if begun else None,
        results=tuple(_if_there(folder / "results.json").get("rows", ())) if done and kind == "eval" else (),
        mix=_if_there(folder / "report.json") if done and kind == "sample" else {},
        folder=folder,
    )


def _sampled_tokens(folder: Path) -> float | None:
    """Of all samples; of their files only this column is read. None where there are none."""
    from pyarrow import compute, parquet

    columns = [parquet.read_table(shard, columns=["tokens"])["tokens"] for shard in folder.glob("*.parquet")]
    return math.fsum(compute.sum(column).as_py() or 0 for column in columns) or None


def _if_there(path: Path) -> Row:
    return read_json(path) if path.exists() else {}


def recipe_figures(folder: Path) -> dict[str, Any]:
    """What `r1ray report --json` prints of a recipe: by stage state and wall time, by policy and benchmark the figures."""
    recipe = load_recipe(folder)
    return {
        "main": recipe.main,
        "stages": {s.name: {"kind": s.kind, "state": s.state, "seconds": s.seconds} for s in recipe.stages},
        "policies": {name: {row["benchmark"]: row for row in recipe.results(name)} for name in recipe.evaluated()},
    }
