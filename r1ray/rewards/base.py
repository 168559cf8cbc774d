"""Rewards: functions of one sample, computed at once, in a worker process or by a model.

    Sample --reward--> float                          computed at once: tags, plain numbers, lengths
                   |-> Call --pool process--> float   computed elsewhere: it may hang, crash or run untrusted code
                   `-> Ask ---thread--------> float   asked of a model in this process, or of an endpoint

A reward is a frozen dataclass whose fields are its parameters in the configuration; calling it
scores a sample.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from r1ray.rewards.answers.answer import opening
from r1ray.types import FinishReason, Message, RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response with what is needed to score it. Consumers: rewards, user-defined ones included."""

    response: str  # the text of the completion, without the token that ended it
    answer: Any = None  # ground truth: text, number, tests, ... (msgpack types)
    prompt_id: str = ""
    task: str = ""  # name of the data source
    messages: tuple[Message, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = None  # T, of the completion; None if unknown (offline scoring)
    max_new_tokens: int | None = None
    finish_reason: FinishReason = "stop"

    @classmethod
    def of(cls, group: RolloutGroup, i: int) -> Sample:
        """Completion `i` of a group."""
        completion, prompt = group.completions[i], group.prompt
        return cls(
            response=completion.text,
            answer=prompt.answer,
            prompt_id=prompt.prompt_id,
            task=prompt.task,
            messages=prompt.messages,
            meta=prompt.meta,
            tokens=len(completion.token_ids),
            max_new_tokens=group.sampling.max_new_tokens or None,
            finish_reason=completion.finish_reason,
        )

    @property
    def opening(self) -> str:
        """The start of the response that the prompt contains: `<think>` and white space, or nothing."""
        return opening(self.meta)

    @property
    def opened(self) -> bool:
        """Whether the response begins inside the thinking, because the prompt ends with `<think>`."""
        return bool(self.opening)

    def to_wire(self) -> dict[str, Any]:
        """The fields as msgpack types, for a worker process; `Sample(**wire)` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of a reward for one sample."""

    value: float
    why: str | None = None  # e.g. which test of a program failed, and how


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A judgement for a worker process to make. Producer: rewards. Consumer: Pool."""

    function: str  # "module:function"; returns a float or (float, why)
    args: dict[str, Any]  # its keyword arguments, msgpack types
    lane: Literal["verify", "program"] = (
        "verify"  # program: model-written code; the function also gets the arguments `sandbox` and `limit_s`
    )
    memory_bytes: int | None = 2 << 30  # address space of the process; None: no limit
    limit_s: float = 0.0  # time limit, if that is longer than reward_worker.timeout_s
    extra_s: float = 0.0  # time beyond the limit, for functions that enforce it themselves
    then: Callable[[float], float] | None = None  # applied to the value, in the caller's process

    def followed_by(self, then: Callable[[float], float]) -> Call:
        """The same call, with `then` applied to its value."""
        return replace(self, then=then)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A judgement of a model or an endpoint, for a thread to wait for. Producer: rewards. Consumer: Scorer."""

    function: Callable[[], float]  # enforces its own time limit; raises DataError or InfrastructureError

    def followed_by(self, then: Callable[[float], float]) -> Ask:
        """The same question, with `then` applied to its value."""
        return Ask(function=lambda: then(self.function()))


class Reward(abc.ABC):
    """Scores samples. Subclasses are frozen dataclasses; their fields are the parameters in the configuration."""

    __slots__ = ()

    @abc.abstractmethod
    def __call__(self, sample: Sample) -> float | Call | Ask:
        """The value of the sample, or how to compute it. Raises DataError for a sample that cannot be scored."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules to import, or `module:function` to call, in worker processes before the first call."""
        return ()

    @property
    def sandboxed(self) -> bool:
        """Whether it runs model-written programs."""
        return False

    def check(self) -> None:  # noqa: B027 - most rewards need nothing
        """Check at the start what scoring will need. Raises ConfigError, with how to fix it, if
        something is missing.
        """
