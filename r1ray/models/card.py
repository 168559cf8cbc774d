"""README.md of an exported model: description, use, measured figures, and lineage.

All content is read from the run or recipe folder of the model, and only measured figures are claimed. Paths of the
machine are left out: of a folder the card names the last part only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from r1ray.util.files import read_json
from r1ray.util.formatting import duration, number, share
from r1ray.run.metrics import read_evaluations
from r1ray.models.folder import ModelShape, model_hash
from r1ray.run.policy import EVALUATION, POLICY_KINDS, Policy, ancestors
from r1ray.run.folder import RunFolder

OPENINGS = {
    "r1_zero": "the format of R1-Zero: `<think>` the reasoning `</think> <answer>` the answer `</answer>`",
    "r1": "the model's chat format, with `<think>` and a line break at the start of the response",
    "tokenizer": "the model's chat format",
    "plain": "`User: ...` and `Assistant:`",
    "none": "the bare text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Facts about the exported model itself."""

    name: str  # of its folder
    shape: ModelShape
    dtype: str
    weights: str  # `final`, or the name of the checkpoint
    model_hash: str  # of the exported weights


def model_card(policy: Policy, exported: Exported) -> str:
    """The card as Markdown with YAML front matter."""
    base = _base(policy)
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if base and base.count("/") == 1 and not Path(base).exists():  # a name on the hub
        front |= {"base_model": base, "base_model_relation": "finetune"}
    front["tags"] = ["reasoning", "r1ray"]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {exported.name}",
        _what(policy, exported, base),
        _use(policy, exported),
        _figures(policy),
        _lineage(policy, exported),
        LIMITS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(policy: Policy, exported: Exported, base: str | None) -> str:
    size = f"A reasoning model of {number(exported.shape.parameters)} parameters ({exported.dtype})"
    text = [f"{size}, {'made from ' + _last_name(base) if base else 'made'} with r1ray."]
    if policy.recipe is not None:
        recipe = read_json(policy.recipe / "recipe.json")
        doc = f" {recipe['doc']}" if recipe.get("doc") else ""
        text.append(f"It is the stage `{policy.stage}` of the recipe `{recipe['name']}`.{doc}")
    text.append(f"Weights: {exported.weights}. Longest sequence: {exported.shape.context:,} tokens.")
    return " ".join(text)


def _use(policy: Policy, exported: Exported) -> str:
    template = policy.template
    framed = (
        f"The model was trained on {OPENINGS[template]}; `chat_template.jinja` renders a chat in this format."
        if template
        else ""
    )
    return f"""## Use

```
r1ray chat {exported.name}
r1ray serve {exported.name}     # OpenAI-compatible; thinking in `reasoning`, the answer in `content`
```

{framed} It thinks between `<think>` and `</think>` and answers after it.

Sampling: temperature 0.6 and top-p 0.95 (in `generation_config.json`), without a system prompt; greedy decoding tends to
repeat itself. If responses do not begin with thinking, make them begin with `<think>` and a line break."""


# --- figures


def _figures(policy: Policy) -> str:
    rows = _benchmarks(policy) or _evaluations(policy)
    if not rows:
        return "## Figures\n\nThe model was not evaluated."
    head = ("benchmark", "problems", "samples each", "accuracy (pass@1)", "majority vote", "format", "length, tokens")
    return (
        "## Figures\n\n" + markdown_table(head, rows) + "\n\nMeasured by r1ray; ± is the standard error over problems."
    )


def _benchmarks(policy: Policy) -> list[list[str]]:
    """The recipe's evaluation of this stage, if it is of these weights: the stage may have run again since."""
    if policy.recipe is None or not (policy.model / "config.json").exists():
        return []
    path = policy.recipe / f"{EVALUATION}{policy.stage}" / "results.json"
    results = read_json(path) if path.exists() else {}
    if results.get("model_hash") != model_hash(policy.model):
        return []
    return [
        [
            str(row["benchmark"]),
            number(row["problems"]),
            number(row["samples"]),
            with_error(row["accuracy"], row["accuracy_se"]),
            with_error(row.get("consensus"), row.get("consensus_se")),
            share(row.get("parts", {}).get("format")),
            number(row["length"]),
        ]
        for row in results["rows"]
    ]


def _evaluations(policy: Policy) -> list[list[str]]:
    """The newest held-out figures of the run itself."""
    last = {row["source"]: row for row in read_evaluations(policy.run)} if policy.run else {}
    return [
        [
            f"{source} (held out, step {row['step']})",
            number(row.get("problems")),
            number(row.get("samples")),
            with_error(row["accuracy"], row.get("accuracy_se")),
            with_error(row.get("consensus"), row.get("consensus_se")),
            share(row.get("format")),
            number(row.get("length")),
        ]
        for source, row in last.items()
        if row.get("accuracy") is not None
    ]


def with_error(value: float | None, error: float | None) -> str:
    """`86.5 ± 2.0 %`; a dash if there is no value."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with the characters escaped that would end a cell."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in line) + " |" for line in lines
    )


# --- lineage


def _lineage(policy: Policy, exported: Exported) -> str:
    facts = [f"- weights exported: `{exported.model_hash}`"]
    if policy.recipe is not None and policy.stage is not None:
        return "\n".join(["## How it was made", "", _stages(policy.recipe, policy.stage), "", *facts])
    if policy.run is not None:
        identity = RunFolder.open(policy.run).identity()
        facts += [
            f"- run {identity.run_id} (`r1ray {identity.use}`), r1ray {identity.r1ray}",
            f"- initial weights `{identity.model_hash}`, vocabulary `{identity.vocab_hash}`",
            f"- configuration `{identity.config_hash}`, seed {policy.setting('run', 'seed')}",
        ]
    return "\n".join(["## How it was made", "", *facts])


def _stages(folder: Path, last: str) -> str:
    stages = {str(s["name"]): s for s in read_json(folder / "recipe.json")["stages"]}
    wanted = ancestors(last, stages) | {last}
    rows, codes = [], []
    for name in (n for n in stages if n in wanted):
        path = folder / name / "lineage.json"
        record: Mapping[str, Any] = read_json(path) if path.exists() else {}
        reads = ", ".join(
            f"{_last_name(k)} `{short_digest(v.get('digest'))}`" for k, v in record.get("inputs", {}).items()
        )
        made = short_digest(record.get("output", {}).get("digest"))
        seconds = record.get("seconds")
        took = "–" if seconds is None else duration(seconds)
        rows.append([name, str(stages[name]["kind"]), reads, str(record.get("seed", "–")), f"`{made}`", took])
        codes.append(record.get("code", {}))
    table = markdown_table(("stage", "kind", "from", "seed", "output", "wall time"), rows)
    return f"{table}\n\nVersions: {versions(codes) or 'not recorded'}."


def versions(codes: Iterable[Mapping[str, str]]) -> str:
    """Versions that the stages ran on: each name with all of its values, commits shortened."""
    values: dict[str, dict[str, None]] = {}
    for code in codes:
        for name, value in code.items():
            short = value[:10] + ("+" if value.endswith("+") else "") if name == "commit" else value
            values.setdefault(name, {})[short] = None
    return ", ".join(f"{name} {' and '.join(each)}" for name, each in values.items())


def short_digest(digest: str | None) -> str:
    """The first 12 digits, without the name of the hash function; a dash if there is no digest."""
    return digest.rpartition(":")[2][:12] if digest else "–"


def _base(policy: Policy) -> str | None:
    """The model that training began from; of a recipe,
    the one of the first training stage in the history of the policy.
    """
    model = policy.setting("model", "path")
    if policy.recipe is None or policy.stage is None:
        return model
    stages = {str(s["name"]): s for s in read_json(policy.recipe / "recipe.json")["stages"]}
    wanted = ancestors(policy.stage, stages) | {policy.stage}
    trained = (policy.recipe / name for name, s in stages.items() if name in wanted and s["kind"] in POLICY_KINDS)
    first = next((run for run in trained if (run / "run.json").exists()), None)
    return model if first is None else Policy(model=first, run=first).setting("model", "path")


def _last_name(path: str) -> str:
    """A hub name unchanged, or the last distinctive part of a path."""
    parts = [p for p in PurePosixPath(path.removeprefix("@")).parts if p not in ("/", "final", "model")]
    return parts[-1] if parts else path


LIMITS = """## Limits

The figures above hold for these benchmarks and sampling settings; other tasks were not measured. Reinforcement learning
with rules teaches what the rules measure. The thinking is not a faithful account of how the model found an answer. It may mix
languages, and it may be wrong although the answer is right. Safety was not evaluated, except by the rewards that the
configuration names."""
