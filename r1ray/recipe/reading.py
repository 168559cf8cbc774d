"""Recipe file and overlays -> Recipe.

    recipe.yaml -> overlay 1 -> overlay 2 ...            a later file wins
    common.extends -> common.config -> stage.extends -> stage.config      within one file

Every file is checked as it is read, so that a problem names its key and the line that set it. An overlay changes values,
replaces inputs and drops stages (`name: null`); it adds none, but for claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ray.config.problems import refuse
from r1ray.config.sources import Source, find_file, read_file, read_in_order
from r1ray.errors import ConfigError
from r1ray.recipe.claims import check_claims, read_claims
from r1ray.recipe.drafts import (
    COMMON,
    EVALUATION_KEYS,
    EVALUATIONS_KEYS,
    EXPECT,
    INPUT,
    RUNNERS_KEYS,
    STAGE,
    TOP,
    Draft,
)
from r1ray.recipe.kinds import KINDS, fits
from r1ray.recipe.problems import ProblemCollector
from r1ray.recipe.records import Claim, Expect, Input, Recipe, Stage
from r1ray.run.policy import EVALUATION
from r1ray.util.hints import nearest


def read_recipe(path: Path, overlays: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `overlays` (paths, or names under conf/) merged into it.

    Raises ConfigError that names every key that is unknown, of a wrong type, or missing, with what comes nearest.
    """
    reading = _Reading()
    names = []
    for i, name in enumerate([str(path), *overlays]):
        source, extends = read_file(find_file(name, Path.cwd(), "no recipe file" if i == 0 else "no overlay"))
        if extends:
            raise ConfigError(f"{source.name}: a recipe extends nothing; a stage does, or `common`")
        names.append(source.name)
        reading.file(source, overlay=i > 0)
    return reading.finish(tuple(names))


class _Reading(ProblemCollector):
    """Takes one file after another and collects what is wrong with them."""

    def __init__(self) -> None:
        super().__init__()
        self.top: dict[str, Any] = {"seed": 0, "doc": ""}
        self.inputs: dict[str, Input | Draft] = {}
        self.stages: dict[str, Draft] = {}
        self.evaluation: Draft | None = None
        self.evaluated_inputs: list[str] = []
        self.claims: dict[str, Claim] = {}
        self.own: dict[str, list[Source]] = {}  # stage -> what the file at hand says of its evaluation alone

    def file(self, source: Source, *, overlay: bool) -> None:
        content = source.content
        self.known(source, "", content, TOP)
        for key, wanted in (("name", str), ("dir", str), ("seed", int), ("doc", str)):
            if key in content:
                self.top[key] = self.typed(source, key, content[key], wanted)
        for name, value in self.map(source, "inputs", content.get("inputs")).items():
            if self.nameable(source, f"inputs.{name}", name) and self._there(source, "inputs", name, overlay):
                self._input(source, name, value)
        common = self._layers(source, "common", self.map(source, "common", content.get("common")), COMMON)
        stated = self.map(source, "stages", content.get("stages"))
        for name, value in stated.items():
            if self.nameable(source, f"stages.{name}", name) and self._there(source, "stages", name, overlay):
                self._stage(source, name, value, common, overlay)
        for name, draft in self.stages.items():
            if name not in stated:
                draft.layers += common
        shared = self._evaluation(source, content.get("evaluation"), common)
        for name, draft in self.stages.items():
            draft.asked += [*shared, *self.own.pop(name, [])]
        read_claims(self, source, content.get("claims"), self.claims)

    def finish(self, files: tuple[str, ...]) -> Recipe:
        for key in ("name", "dir"):
            if not self.top.get(key):
                self.problem(key, None, "is missing", f"give the recipe a {key}")
        if not self.stages:
            self.problem("stages", None, "is missing", "name the stages")
        drafts = [d for d in self.inputs.values() if isinstance(d, Draft)] + list(self.stages.values())
        stages: list[Stage] = []
        for name in sorted(set(self.inputs) & set(self.stages)):
            self.problem(f"stages.{name}", name, "is an input as well", "give one of them another name")
        for name in self.evaluated_inputs:
            if name not in self.inputs:
                self.problem("evaluation.inputs", name, "is no input", nearest(name, self.inputs))
            elif isinstance(self.inputs[name], Input):
                stages += self._evaluations(name, True)
        for draft in drafts:
            stages.append(self._finished(draft))
            asked = draft.name in self.evaluated_inputs
            policy = KINDS[draft.kind].policy and stages[-1].evaluate
            stages += self._evaluations(draft.name, asked or policy)
        evaluated = [s.name.removeprefix(EVALUATION) for s in stages if s.name.startswith(EVALUATION)]
        check_claims(self, self.claims.values(), evaluated)
        refuse(self.problems, self.provenance)
        return Recipe(
            name=self.top["name"],
            dir=Path(self.top["dir"]),
            seed=self.top["seed"],
            doc=self.top["doc"],
            files=files,
            inputs={n: i for n, i in self.inputs.items() if isinstance(i, Input)},
            stages=tuple(stages),
            claims=tuple(self.claims.values()),
        )

    # --- the parts of a file

    def _input(self, source: Source, name: str, value: Any) -> None:
        key = f"inputs.{name}"
        if isinstance(value, dict) and "kind" in value:
            draft = self._draft(source, key, name, value, [])
            if draft is not None:
                self.inputs[name] = draft
            return
        entry = {"path": value} if isinstance(value, str) else self.map(source, key, value)
        self.known(source, key, entry, INPUT)
        if not isinstance(path := entry.get("path"), str) or not path:
            self.problem(key, value, "is no path", "a folder or file, or {kind: tiny, ...}", source)
            return
        parameters: Any = entry.get("parameters")
        if parameters is not None and not fits(parameters, "number"):
            self.problem(f"{key}.parameters", parameters, "is not a number", "e.g. 1.5e9", source)
            return
        self.inputs[name] = Input(name=name, path=path, parameters=parameters)

    def _stage(self, source: Source, name: str, value: Any, common: list[Source], overlay: bool) -> None:
        key = f"stages.{name}"
        if value is None and overlay:
            del self.stages[name]
            return
        if name not in self.stages:
            draft = self._draft(source, key, name, value, common)
            if draft is not None:
                self.stages[name] = draft
            return
        content = self.map(source, key, value)
        draft = self.stages[name]
        if content.get("kind", draft.kind) != draft.kind:
            message = f"is another kind than {draft.kind}, which an overlay cannot change"
            self.problem(f"{key}.kind", content["kind"], message, "leave it out", source)
            return
        draft.layers += common
        self._update(source, key, draft, content)

    def _draft(self, source: Source, key: str, name: str, value: Any, common: list[Source]) -> Draft | None:
        content = self.map(source, key, value)
        if (kind := content.get("kind")) not in KINDS:
            self.problem(f"{key}.kind", kind, "is no kind of stage", f"one of {', '.join(KINDS)}", source)
            return None
        draft = Draft(name=name, kind=kind, layers=list(common))
        self._update(source, key, draft, content)
        return draft

    def _evaluation(self, source: Source, value: Any, common: list[Source]) -> list[Source]:
        """Take in what the file says of the evaluation of all policies. Returns the layers that it adds."""
        before = len(self.evaluation.layers) if self.evaluation is not None else 0
        if self.evaluation is not None:
            self.evaluation.layers += common
        if value is None:
            return self.evaluation.layers[before:] if self.evaluation is not None else []
        content = self.map(source, "evaluation", value)
        self.known(source, "evaluation", content, EVALUATION_KEYS)
        if self.evaluation is None:
            self.evaluation = Draft(name="evaluation", kind="eval", layers=list(common))
        if "inputs" in content:
            named = content["inputs"]
            if not isinstance(named, list) or not all(isinstance(n, str) for n in named):
                self.problem("evaluation.inputs", named, "is no list of names", "e.g. [base]", source)
            else:
                self.evaluated_inputs = named
        stated = {k: v for k, v in content.items() if k in STAGE}
        self._update(source, "evaluation", self.evaluation, stated)
        return self.evaluation.layers[before:]

    def _update(self, source: Source, key: str, draft: Draft, content: dict[str, Any]) -> None:
        """What one file says of a stage, over what earlier ones said."""
        self.known(source, key, content, STAGE)
        kind = KINDS[draft.kind]
        for name, wanted in (("doc", str), ("published", str), ("evaluate", bool)):
            if name in content:
                draft.plain[name] = self.typed(source, f"{key}.{name}", content[name], wanted)
        if kind.use is None and (unread := [n for n in COMMON if n in content]):
            self.problem(f"{key}.{unread[0]}", content[unread[0]], f"a {kind.name} stage has none", "options", source)
        options = self.map(source, f"{key}.options", content.get("options"))
        self.known(source, f"{key}.options", options, tuple(kind.options))
        for name, value in options.items():
            if name in kind.options and value is not None and not fits(value, kind.options[name]):
                self.problem(
                    f"{key}.options.{name}", value, f"is no {kind.options[name]}", "see docs/recipe.md", source
                )
        draft.update_options(options)
        expect = self.map(source, f"{key}.expect", content.get("expect"))
        self.known(source, f"{key}.expect", expect, EXPECT)
        for name, value in expect.items():
            if not fits(value, "number") or value <= 0:
                self.problem(f"{key}.expect.{name}", value, "is no number above 0", "how many, or leave it out", source)
        draft.expect.update(expect)
        if "evaluation" in content:
            if not kind.policy:
                self.problem(f"{key}.evaluation", "...", f"a {kind.name} stage gives no policy", "leave it out", source)
            inner = self.map(source, f"{key}.evaluation", content["evaluation"])
            self.own[draft.name] = self._layers(source, f"{key}.evaluation", inner, COMMON, EVALUATIONS_KEYS)
        draft.layers += self._layers(
            source, key, content, None, EVALUATIONS_KEYS if kind.use == "eval" else RUNNERS_KEYS
        )

    def _layers(
        self,
        source: Source,
        key: str,
        content: dict[str, Any],
        allowed: Sequence[str] | None,
        runners: Sequence[str] = RUNNERS_KEYS,
    ) -> list[Source]:
        """`extends` and `config` of `content` as sources of a configuration, their lines those of the recipe file."""
        if allowed is not None:
            self.known(source, key, content, allowed)
        layers: list[Source] = []
        extends = content.get("extends") or []
        if not isinstance(extends, list) or not all(isinstance(e, str) for e in extends):
            self.problem(f"{key}.extends", extends, "is no list of overlays", "e.g. [tiny]", source)
            extends = []
        for name in extends:
            layers += read_in_order([name])[1:]  # without base.yaml, which begins every stage
        config = self.map(source, f"{key}.config", content.get("config"))
        for own in runners:
            section, _, leaf = own.partition(".")
            if isinstance(inner := config.get(section), dict) and leaf in inner:
                self.problem(f"{key}.config.{own}", inner[leaf], "is the recipe's to set", "leave it out", source)
        if config:
            prefix = f"{key}.config."
            lines = {k.removeprefix(prefix): n for k, n in source.lines.items() if k.startswith(prefix)}
            layers.append(Source(name=source.name, content=config, lines=lines))
        return layers

    # --- the end

    def _finished(self, draft: Draft) -> Stage:
        kind = KINDS[draft.kind]
        for option in kind.needed:
            if option not in draft.options:
                self.problem(f"stages.{draft.name}.options", None, f"lacks {option}", f"{kind.name} stages need it")
        if "evaluate" in draft.plain and not kind.policy:
            self.problem(f"stages.{draft.name}.evaluate", True, f"a {kind.name} stage gives no policy", "leave it out")
        return Stage(
            name=draft.name,
            kind=draft.kind,
            layers=tuple(draft.layers),
            options=draft.options,
            expect=Expect(**{k: v for k, v in draft.expect.items() if k in EXPECT}),
            **draft.plain,
        )

    def _evaluations(self, name: str, wanted: bool) -> list[Stage]:
        if not wanted or self.evaluation is None:
            return []
        draft = self.evaluation
        layers = self.stages[name].asked if name in self.stages else draft.layers
        if "benchmarks" not in draft.options:
            self.problem("evaluation.options", None, "lacks benchmarks", "e.g. benchmarks: [gsm8k]")
        return [
            Stage(
                name=EVALUATION + name,
                kind="eval",
                doc=f"Benchmarks of {name}.",
                layers=tuple(layers),
                options={**draft.options, "model": f"@{name}"},
                expect=Expect(**{k: v for k, v in draft.expect.items() if k in EXPECT}),
            )
        ]

    def _there(self, source: Source, section: str, name: str, overlay: bool) -> bool:
        """Whether an overlay may speak of `name`: the recipe has it."""
        have: Mapping[str, Any] = self.inputs if section == "inputs" else self.stages
        if overlay and name not in have:
            what = "no such input" if section == "inputs" else "no such stage"
            self.problem(f"{section}.{name}", "...", what, nearest(name, have), source)
            return False
        return True
