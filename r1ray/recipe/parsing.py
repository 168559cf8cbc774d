"""Check the parts of a recipe file: keys, types, names and claims. All problems are collected, each with its line."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from r1ray.config.problems import Problem, Provenance
from r1ray.config.sources import Source, read_in_order
from r1ray.recipe.stages import Claim, Expect, has_type
from r1ray.run.policy import EVALUATION
from r1ray.util.hints import nearest

TOP_KEYS = ("name", "dir", "seed", "doc", "parallel", "inputs", "common", "evaluation", "stages", "claims")
COMMON_KEYS = ("extends", "config")
STAGE_KEYS = ("kind", "doc", "extends", "config", "options", "evaluate", "evaluation", "expect", "published")
EVALUATION_KEYS = ("inputs", "extends", "config", "options", "expect")
INPUT_KEYS = ("path", "parameters")
EXPECT_KEYS = tuple(f.name for f in fields(Expect))
RUNNER_KEYS = ("run.dir", "run.name", "checkpoint.export_final")
"""Configuration keys that the runner sets in every stage."""
EVALUATION_RUNNER_KEYS = (*RUNNER_KEYS, "model.path", "data.template", "data.system_prompt")
"""Configuration keys that the runner sets in evaluations."""

RELATIONS = ("at_least", "above", "below")
_CLAIM_KEYS = ("figure", "of", "margin", "benchmark", *RELATIONS)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = ("logs", "stages", "lock", "recipe", "report")


@dataclass
class Draft:
    """A stage while files are read, or the evaluation that all policies share."""

    name: str
    kind: str
    layers: list[Source] = field(default_factory=list)
    evaluation_layers: list[Source] = field(default_factory=list)  # of the evaluation of this policy, file by file
    options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)  # doc, evaluate, published
    expect: dict[str, Any] = field(default_factory=dict)

    def update_options(self, options: dict[str, Any]) -> None:
        """Merge the options of a later file; null removes an option."""
        self.options.update(options)
        self.options = {name: value for name, value in self.options.items() if value is not None}


class ProblemCollector:
    """Collect the problems of recipe files, each with the line that caused it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.provenance = Provenance()

    def add(self, key: str, value: Any, message: str, fix: str | None, source: Source | None = None) -> None:
        """Add one problem. `source` is the file that sets the key."""
        if source is not None:
            self.provenance[key] = source.origin(key)
        self.problems.append(Problem(key=key, value=value, message=message, fix=fix))

    def check_keys(self, source: Source, key: str, content: dict[str, Any], allowed: Sequence[str]) -> None:
        """Add a problem for each key of `content` that is not in `allowed`."""
        for name, value in content.items():
            if name not in allowed:
                full = f"{key}.{name}" if key else name
                self.add(full, value, "no such key", nearest(name, allowed), source)

    def as_map(self, source: Source, key: str, value: Any) -> dict[str, Any]:
        """Return `value` as a map, empty for null. Anything else is a problem and gives an empty map."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(key, value, "expected a section, got a value", "write a map", source)
            return {}
        return {str(k): v for k, v in value.items()}

    def check_type(self, source: Source, key: str, value: Any, wanted: type) -> Any:
        """Return `value`; add a problem if it has not the type `wanted`. Integers must be >= 0."""
        names = {str: "a string", int: "an integer >= 0", bool: "true or false"}
        natural = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not (natural if wanted is int else isinstance(value, wanted)):
            self.add(key, value, f"expected {names[wanted]}", None, source)
        return value

    def check_name(self, source: Source, key: str, name: str) -> bool:
        """Return whether a stage or an input may have this name; add a problem if not."""
        if not _NAME.fullmatch(name) or name in _RESERVED or name.startswith(EVALUATION):
            fix = f"use lower-case letters, digits and _; not {', '.join(_RESERVED)} or {EVALUATION}..."
            self.add(key, name, "not a valid name of a stage or input", fix, source)
            return False
        return True

    def config_layers(
        self,
        source: Source,
        key: str,
        content: dict[str, Any],
        allowed: Sequence[str] | None,
        set_by_runner: Sequence[str] = RUNNER_KEYS,
    ) -> list[Source]:
        """Return `extends` and `config` of `content` as configuration sources with lines of the recipe file."""
        if allowed is not None:
            self.check_keys(source, key, content, allowed)
        layers: list[Source] = []
        extends = content.get("extends") or []
        if not isinstance(extends, list) or not all(isinstance(e, str) for e in extends):
            self.add(f"{key}.extends", extends, "expected a list of overlays", "e.g. [tiny]", source)
            extends = []
        for name in extends:
            layers += read_in_order([name])[1:]  # without base.yaml, the first layer of every stage
        config = self.as_map(source, f"{key}.config", content.get("config"))
        for own in set_by_runner:
            section, _, leaf = own.partition(".")
            if isinstance(inner := config.get(section), dict) and leaf in inner:
                self.add(
                    f"{key}.config.{own}", inner[leaf], "the recipe sets this key itself", "remove the key", source
                )
        if config:
            prefix = f"{key}.config."
            lines = {k.removeprefix(prefix): n for k, n in source.lines.items() if k.startswith(prefix)}
            layers.append(Source(name=source.name, content=config, lines=lines))
        return layers


def read_claims(collector: ProblemCollector, source: Source, value: Any, claims: dict[str, Claim]) -> None:
    """Add the claims of one file to `claims`; null removes a claim of an earlier file.

    `r1ray verify` checks them. Example:

        claims:
          distilled_better: {figure: accuracy, of: distill, above: student_rl}
          still_right: {figure: accuracy, of: rl_all, at_least: r1_zero, margin: -0.03}
          mixed_before: {figure: parts/language, of: r1_zero, below: 0.8}
    """
    for name, stated in collector.as_map(source, "claims", value).items():
        key = f"claims.{name}"
        claims.pop(name, None)
        if stated is None:
            continue
        content = collector.as_map(source, key, stated)
        collector.check_keys(source, key, content, _CLAIM_KEYS)
        relations = [relation for relation in RELATIONS if relation in content]
        if len(relations) != 1:
            message = f"expected exactly one of {', '.join(RELATIONS)}, got {len(relations)}"
            collector.add(key, content, message, "compare with one policy or number", source)
            continue
        bound, margin, benchmark = content[relations[0]], content.get("margin", 0.0), content.get("benchmark")
        strings = [content.get("figure"), content.get("of"), *([] if benchmark is None else [benchmark])]
        if not all(has_type(s, "string") for s in strings) or not has_type(margin, "number"):
            fix = "figure (as in results.json, e.g. accuracy) and of (a policy): strings; margin: a number"
            collector.add(key, content, "not a valid claim", fix, source)
        elif not has_type(bound, "number") and not has_type(bound, "string"):
            collector.add(f"{key}.{relations[0]}", bound, "expected a policy or a number", "give one", source)
        else:
            claims[name] = Claim(
                name=name,
                figure=content["figure"],
                of=content["of"],
                relation=relations[0],
                bound=bound if isinstance(bound, str) else float(bound),
                margin=float(margin),
                benchmark=benchmark,
            )


def check_claims(collector: ProblemCollector, claims: Collection[Claim], evaluated: Collection[str]) -> None:
    """Add a problem for each claim about a policy that the recipe does not evaluate."""
    for claim in claims:
        for policy in (claim.of, claim.bound):
            if isinstance(policy, str) and policy not in evaluated:
                fix = f"{nearest(policy, evaluated)}; null removes a claim"
                collector.add(f"claims.{claim.name}", policy, f"the recipe does not evaluate {policy}", fix)
