"""Read a recipe file and its overlays.

    recipe.yaml -> overlay 1 -> overlay 2 ...            a later file wins
    common.extends -> common.config -> stage.extends -> stage.config      within one file

Every file is checked as it is read, so that a problem names its key and the line that set it.
An overlay may change values, replace inputs, remove stages (`name: null`) and add claims. It may
not add stages or inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ray.config.problems import refuse
from r1ray.config.sources import Source, find_file, read_file
from r1ray.errors import ConfigError
from r1ray.recipe.parsing import (
    COMMON_KEYS,
    EVALUATION_KEYS,
    EVALUATION_RUNNER_KEYS,
    EXPECT_KEYS,
    INPUT_KEYS,
    RUNNER_KEYS,
    STAGE_KEYS,
    TOP_KEYS,
    Draft,
    ProblemCollector,
    check_claims,
    read_claims,
)
from r1ray.recipe.stages import KINDS, Claim, Expect, Input, Recipe, Stage, has_type
from r1ray.run.policy import EVALUATION
from r1ray.util.hints import nearest


def read_recipe(path: Path, overlays: Sequence[str] = ()) -> Recipe:
    """Read the recipe in `path` and merge `overlays` (paths, or names under conf/) into it.

    Raises ConfigError that names every key that is unknown, missing or of a wrong type, and the
    nearest valid name.
    """
    reading = _Reading()
    names = []
    for i, name in enumerate([str(path), *overlays]):
        source, extends = read_file(find_file(name, Path.cwd(), "no recipe file" if i == 0 else "no overlay"))
        if extends:
            raise ConfigError(f"{source.name}: a recipe file has no `extends`; put it into a stage or `common`")
        names.append(source.name)
        reading.file(source, overlay=i > 0)
    return reading.finish(tuple(names))


class _Reading(ProblemCollector):
    """Merge recipe files one after another and collect their problems."""

    def __init__(self) -> None:
        super().__init__()
        self.top: dict[str, Any] = {"seed": 0, "doc": "", "parallel": 1}
        self.inputs: dict[str, Input | Draft] = {}
        self.stages: dict[str, Draft] = {}
        self.evaluation: Draft | None = None
        self.evaluated_inputs: list[str] = []
        self.claims: dict[str, Claim] = {}
        self.own_evaluation: dict[str, list[Source]] = {}  # stage -> evaluation layers of the current file

    def file(self, source: Source, *, overlay: bool) -> None:
        """Merge one file; `overlay` is false for the first one."""
        content = source.content
        self.check_keys(source, "", content, TOP_KEYS)
        for key, wanted in (("name", str), ("dir", str), ("seed", int), ("doc", str), ("parallel", int)):
            if key in content:
                self.top[key] = self.check_type(source, key, content[key], wanted)
        for name, value in self.as_map(source, "inputs", content.get("inputs")).items():
            if self.check_name(source, f"inputs.{name}", name) and self._exists(source, "inputs", name, overlay):
                self._input(source, name, value)
        common = self.config_layers(source, "common", self.as_map(source, "common", content.get("common")), COMMON_KEYS)
        stated = self.as_map(source, "stages", content.get("stages"))
        for name, value in stated.items():
            if self.check_name(source, f"stages.{name}", name) and self._exists(source, "stages", name, overlay):
                self._stage(source, name, value, common, overlay)
        for name, draft in self.stages.items():
            if name not in stated:
                draft.layers += common
        shared = self._evaluation(source, content.get("evaluation"), common)
        for name, draft in self.stages.items():
            draft.evaluation_layers += [*shared, *self.own_evaluation.pop(name, [])]
        read_claims(self, source, content.get("claims"), self.claims)

    def finish(self, files: tuple[str, ...]) -> Recipe:
        """Return the recipe. Raises ConfigError if any file had a problem."""
        for key in ("name", "dir"):
            if not self.top.get(key):
                self.add(key, None, "is missing", f"give the recipe a {key}")
        if self.top["parallel"] == 0:
            self.add("parallel", 0, "expected an integer >= 1", "1 runs one stage after another")
        if not self.stages:
            self.add("stages", None, "is missing", "add at least one stage")
        drafts = [d for d in self.inputs.values() if isinstance(d, Draft)] + list(self.stages.values())
        stages: list[Stage] = []
        for name in sorted(set(self.inputs) & set(self.stages)):
            self.add(f"stages.{name}", name, "is also the name of an input", "rename one of them")
        for name in self.evaluated_inputs:
            if name not in self.inputs:
                self.add("evaluation.inputs", name, "no such input", nearest(name, self.inputs))
            elif isinstance(self.inputs[name], Input):
                stages += self._evaluations(name, True)
        for draft in drafts:
            stages.append(self._finished(draft))
            as_input = draft.name in self.evaluated_inputs
            policy = KINDS[draft.kind].trains_policy and stages[-1].evaluate
            stages += self._evaluations(draft.name, as_input or policy)
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
            parallel=self.top["parallel"],
        )

    # --- parts of a file

    def _input(self, source: Source, name: str, value: Any) -> None:
        key = f"inputs.{name}"
        if isinstance(value, dict) and "kind" in value:
            draft = self._draft(source, key, name, value, [])
            if draft is not None:
                self.inputs[name] = draft
            return
        entry = {"path": value} if isinstance(value, str) else self.as_map(source, key, value)
        self.check_keys(source, key, entry, INPUT_KEYS)
        if not isinstance(path := entry.get("path"), str) or not path:
            self.add(key, value, "expected a path", "give a folder or file, or {kind: tiny, ...}", source)
            return
        parameters: Any = entry.get("parameters")
        if parameters is not None and not has_type(parameters, "number"):
            self.add(f"{key}.parameters", parameters, "expected a number", "e.g. 1.5e9", source)
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
        content = self.as_map(source, key, value)
        draft = self.stages[name]
        if content.get("kind", draft.kind) != draft.kind:
            message = f"an overlay cannot change the kind {draft.kind} of a stage"
            self.add(f"{key}.kind", content["kind"], message, "remove the key", source)
            return
        draft.layers += common
        self._update(source, key, draft, content)

    def _draft(self, source: Source, key: str, name: str, value: Any, common: list[Source]) -> Draft | None:
        content = self.as_map(source, key, value)
        if (kind := content.get("kind")) not in KINDS:
            self.add(f"{key}.kind", kind, "no such kind of stage", f"expected one of {', '.join(KINDS)}", source)
            return None
        draft = Draft(name=name, kind=kind, layers=list(common))
        self._update(source, key, draft, content)
        return draft

    def _evaluation(self, source: Source, value: Any, common: list[Source]) -> list[Source]:
        """Merge the file's evaluation of all policies. Returns the layers that it adds."""
        before = len(self.evaluation.layers) if self.evaluation is not None else 0
        if self.evaluation is not None:
            self.evaluation.layers += common
        if value is None:
            return self.evaluation.layers[before:] if self.evaluation is not None else []
        content = self.as_map(source, "evaluation", value)
        self.check_keys(source, "evaluation", content, EVALUATION_KEYS)
        if self.evaluation is None:
            self.evaluation = Draft(name="evaluation", kind="eval", layers=list(common))
        if "inputs" in content:
            named = content["inputs"]
            if not isinstance(named, list) or not all(isinstance(n, str) for n in named):
                self.add("evaluation.inputs", named, "expected a list of names", "e.g. [base]", source)
            else:
                self.evaluated_inputs = named
        stated = {k: v for k, v in content.items() if k in STAGE_KEYS}
        self._update(source, "evaluation", self.evaluation, stated)
        return self.evaluation.layers[before:]

    def _update(self, source: Source, key: str, draft: Draft, content: dict[str, Any]) -> None:
        """Merge what one file sets in a stage over what earlier files set."""
        self.check_keys(source, key, content, STAGE_KEYS)
        kind = KINDS[draft.kind]
        for name, wanted in (("doc", str), ("published", str), ("evaluate", bool)):
            if name in content:
                draft.attributes[name] = self.check_type(source, f"{key}.{name}", content[name], wanted)
        if kind.use is None and (unread := [n for n in COMMON_KEYS if n in content]):
            self.add(
                f"{key}.{unread[0]}",
                content[unread[0]],
                f"a {kind.name} stage takes no configuration",
                "use options",
                source,
            )
        options = self.as_map(source, f"{key}.options", content.get("options"))
        self.check_keys(source, f"{key}.options", options, tuple(kind.options))
        for name, value in options.items():
            if name in kind.options and value is not None and not has_type(value, kind.options[name]):
                self.add(
                    f"{key}.options.{name}",
                    value,
                    f"expected a value of type {kind.options[name]}",
                    "see docs/recipe.md",
                    source,
                )
        draft.update_options(options)
        expect = self.as_map(source, f"{key}.expect", content.get("expect"))
        self.check_keys(source, f"{key}.expect", expect, EXPECT_KEYS)
        for name, value in expect.items():
            if not has_type(value, "number") or value <= 0:
                self.add(
                    f"{key}.expect.{name}", value, "expected a number > 0", "give a number or remove the key", source
                )
        draft.expect.update(expect)
        if "evaluation" in content:
            if not kind.trains_policy:
                self.add(f"{key}.evaluation", "...", f"a {kind.name} stage trains no policy", "remove the key", source)
            inner = self.as_map(source, f"{key}.evaluation", content["evaluation"])
            self.own_evaluation[draft.name] = self.config_layers(
                source, f"{key}.evaluation", inner, COMMON_KEYS, EVALUATION_RUNNER_KEYS
            )
        draft.layers += self.config_layers(
            source, key, content, None, EVALUATION_RUNNER_KEYS if kind.use == "eval" else RUNNER_KEYS
        )

    # --- finished stages

    def _finished(self, draft: Draft) -> Stage:
        kind = KINDS[draft.kind]
        for option in kind.required_options:
            if option not in draft.options:
                self.add(f"stages.{draft.name}.options", None, f"{option} is missing", f"{kind.name} stages require it")
        if "evaluate" in draft.attributes and not kind.trains_policy:
            self.add(f"stages.{draft.name}.evaluate", True, f"a {kind.name} stage trains no policy", "remove the key")
        return Stage(
            name=draft.name,
            kind=draft.kind,
            layers=tuple(draft.layers),
            options=draft.options,
            expect=Expect(**{k: v for k, v in draft.expect.items() if k in EXPECT_KEYS}),
            **draft.attributes,
        )

    def _evaluations(self, name: str, wanted: bool) -> list[Stage]:
        if not wanted or self.evaluation is None:
            return []
        draft = self.evaluation
        layers = self.stages[name].evaluation_layers if name in self.stages else draft.layers
        if "benchmarks" not in draft.options:
            self.add("evaluation.options", None, "benchmarks is missing", "e.g. benchmarks: [gsm8k]")
        return [
            Stage(
                name=EVALUATION + name,
                kind="eval",
                doc=f"Benchmarks of {name}.",
                layers=tuple(layers),
                options={**draft.options, "model": f"@{name}"},
                expect=Expect(**{k: v for k, v in draft.expect.items() if k in EXPECT_KEYS}),
            )
        ]

    def _exists(self, source: Source, section: str, name: str, overlay: bool) -> bool:
        """Return whether an overlay may change `name`: the recipe must have it."""
        have: Mapping[str, Any] = self.inputs if section == "inputs" else self.stages
        if overlay and name not in have:
            what = "no such input" if section == "inputs" else "no such stage"
            self.add(f"{section}.{name}", "...", what, nearest(name, have), source)
            return False
        return True
