"""Verifiers of the accuracy reward: 1.0 if the answer of a response is right, else 0.0."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.answer import answers, last_boxes
from r1ray.rewards.answers.choice import ChoiceVerifier
from r1ray.rewards.answers.latex import cleaned, squeezed
from r1ray.rewards.answers.numbers import close, plain, same, unwrapped
from r1ray.rewards.answers.quantities import assigned
from r1ray.rewards.base import Call, Reward, Sample
from r1ray.rewards.execution.code import CodeVerifier
from r1ray.rewards.text.instructions import InstructionsVerifier
from r1ray.tasks import get_task, is_foreign
from r1ray.tasks.base import SyntheticTask

Truth = str | int | float
_NO_NUMBERS = frozenset(("nan", "+nan", "-nan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MathVerifier(Reward):
    """Equivalence in mathematics.

    The truth may be a complete solution with `#### 18` at its end, or with a `\\boxed{}`.
    """

    def __call__(self, sample: Sample) -> float | Call:
        """See Reward. 1.0 or 0.0, or the call of a worker process if algebra has to decide."""
        truth = _final(_text(sample))
        given = _answers(sample)
        if not given:
            return 0.0
        gold, numbers = plain(truth), [plain(a) for a in given]
        if gold and all(numbers):
            if all(same(gold, n) for n in numbers if n):
                return 1.0
            if len(given) == 1:
                return 0.0
        if len(given) == 1 and squeezed(cleaned(given[0])) == squeezed(cleaned(truth)):
            return 1.0
        return Call(function="r1ray.rewards.answers.symbolic:equivalent", args={"truth": truth, "answers": given})

    @property
    def preload(self) -> tuple[str, ...]:
        """See Reward."""
        return ("r1ray.rewards.answers.symbolic:warm_up",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactVerifier(Reward):
    """The same text, apart from white space, a final full stop and, with `ignore_case`, case.

    A list holds right texts.
    """

    ignore_case: bool = True

    def __call__(self, sample: Sample) -> float:
        """See Reward. 1.0 if every answer is one of the right texts, else 0.0."""
        truths = sample.answer if isinstance(sample.answer, list | tuple) else [_text(sample)]
        if blank := [t for t in truths if not str(t).strip()]:
            raise DataError(f"the answers on record include {blank[0]!r}: a blank text is no answer")
        right = {self._normal(str(t)) for t in truths}
        given = _answers(sample)
        return float(bool(given) and all(self._normal(a) in right for a in given))

    def _normal(self, text: str) -> str:
        text = " ".join(unwrapped(text).split())
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericVerifier(Reward):
    """A number within a tolerance: |answer - truth| <= absolute + relative * |truth|.

    Percent and units are read as in mathematics.
    """

    relative: float = 1e-6
    absolute: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.relative < 1 and 0 <= self.absolute < math.inf):
            raise ConfigError(
                f"accuracy/numeric: expected relative in [0, 1) and absolute >= 0, got relative = {self.relative}, "
                f"absolute = {self.absolute}"
            )

    def __call__(self, sample: Sample) -> float:
        """See Reward. 1.0 if every answer is within the tolerance, else 0.0."""
        truth = plain(assigned(_final(_text(sample))))
        if truth is None:
            raise DataError(f"the answer {sample.answer!r:.80} is no number: use accuracy/math or accuracy/exact")
        given = [plain(assigned(a)) for a in _answers(sample)]
        near = functools.partial(close, truth, absolute=self.absolute, relative=self.relative)
        return float(bool(given) and all(n is not None and near(n) for n in given))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVerifier(Reward):
    """The checker of the synthetic task that the prompt comes from: 1.0 or 0.0; with `partial` the credit that it
    gives.

    Checkers of users and of reasoning-gym run in a worker process.
    """

    partial: bool = False

    def __call__(self, sample: Sample) -> float | Call:
        """See Reward. The verdict of the checker on the answers."""
        if "synthetic" not in sample.meta:
            raise DataError("accuracy/task judges prompts of synthetic tasks only; choose another verifier")
        args = {
            "name": str(sample.meta["synthetic"]),
            "params": json.dumps(sample.meta.get("params", {}), sort_keys=True),
            "answers": _answers(sample),
            "truth": sample.answer,
            "partial": self.partial,
        }
        if is_foreign(args["name"]):
            return Call(function="r1ray.rewards.answers.accuracy:check_by_task", args=args)
        return check_by_task(**args)


VERIFIERS: dict[str, type[Reward]] = {
    "math": MathVerifier,
    "choice": ChoiceVerifier,
    "exact": ExactVerifier,
    "numeric": NumericVerifier,
    "task": TaskVerifier,
    "code": CodeVerifier,
    "instructions": InstructionsVerifier,
}
"""The values of the parameter `verifier` of accuracy and cosine_length."""


def check_by_task(name: str, params: str, answers: list[str], truth: Any, partial: bool = False) -> float:
    """The task's verdict on the worst of the answers; 0 if there is none. `params`: the task's parameters as JSON.

    Less than full credit is 0 unless `partial` is set.
    """
    task = _task(name, params)
    credit = min((float(task.check(answer, truth)) for answer in answers), default=0.0)
    return credit if partial or credit == 1.0 else 0.0


@functools.lru_cache(maxsize=256)
def _task(name: str, params: str) -> SyntheticTask:
    return get_task(name, json.loads(params))


def _answers(sample: Sample) -> list[str]:
    return answers(sample.response, opened=sample.opened, complete=sample.finish_reason == "stop")


def _text(sample: Sample) -> str:
    truth: Any = sample.answer
    if isinstance(truth, bool) or not isinstance(truth, Truth) or truth == "":
        raise DataError(f"the answer on record: expected text or a number, got {truth!r:.80}")
    text = str(truth).strip()
    if not text or (isinstance(truth, float) and not math.isfinite(truth)):
        raise DataError(f"the answer on record is {truth!r:.80}: a blank text or NaN is no answer")
    return text


def _final(solution: str) -> str:
    """The final answer of a solution; the whole text if it marks none.

    Boxes that its last sentence joins are one answer. Raises DataError if the marked answer is blank.
    """
    if "####" in solution:
        final = solution.rsplit("####", 1)[1].strip()
    else:
        boxes = last_boxes(solution) if "\\" in solution else []
        final = ", ".join(box.strip() for box in boxes) if boxes else solution
    if final.lower() in _NO_NUMBERS:
        raise DataError(f"the answer on record is {final!r}: expected a number or an expression")
    if not final.strip(", "):
        raise DataError(f"the answer on record marks a final answer that is blank: {solution[-80:]!r}")
    return final
