"""What a reward is: a function of one sample, or a question that something slower must answer for it.

    Sample --reward--> float                          judged on the spot: tags, plain numbers, lengths
                   |-> Call --pool process--> float   judged elsewhere: it may hang, crash or run foreign code
                   `-> Ask ---thread--------> float   asked of a model in this process, or of an endpoint

A reward is a frozen dataclass whose fields are its parameters in the configuration; calling it judges a sample.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from r1ray.rewards.answers.answer import opening
from r1ray.types import FinishReason, Message, RolloutGroup

_END_TOKENS = re.compile(r"(?:\s*(?:<\|[^|<>\s]{1,32}\|>|<｜[^｜<>\s]{1,32}｜>|</s>|<eos>|<end_of_turn>))+\s*\Z")
_TAIL = 400
"""Characters at the end of a completion in which end tokens are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response with what is needed to judge it. Consumers: rewards, user-defined ones included."""

    response: str  # the completion without end tokens such as <|im_end|>
    answer: Any = None  # what is right: text, number, tests, ... (msgpack types)
    prompt_id: str = ""
    task: str = ""  # name of the data source
    messages: tuple[Message, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = None  # T, of the completion; None where unknown (offline scoring)
    max_new_tokens: int | None = None
    finish_reason: FinishReason = "stop"

    @classmethod
    def of(cls, group: RolloutGroup, i: int) -> Sample:
        """Completion `i` of a group."""
        completion, prompt = group.completions[i], group.prompt
        return cls(
            response=without_end_tokens(completion.text),
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
        """What the prompt has begun the response with: `<think>` and white space, or nothing."""
        return opening(self.meta)

    @property
    def opened(self) -> bool:
        """Whether the response begins inside the thinking, because the prompt has opened it."""
        return bool(self.opening)

    def to_wire(self) -> dict[str, Any]:
        """The fields as msgpack types, for a worker process; `Sample(**wire)` is the way back."""
        return asdict(self)


def without_end_tokens(text: str) -> str:
    """The text without the special tokens that end a turn. Such tokens in its midst stay."""
    found = _END_TOKENS.search(text, max(0, len(text) - _TAIL))
    return text[: found.start()] if found else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a reward says of a sample."""

    value: float
    why: str | None = None  # e.g. which test of a program failed, and how


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A judgement that a worker process has to make. Producer: rewards. Consumer: Pool."""

    function: str  # "module:function"; returns a float or (float, why)
    args: dict[str, Any]  # its keyword arguments, msgpack types
    lane: Literal["verify", "program"] = (
        "verify"  # program: on the lane of model-written code, with `sandbox` and `limit_s` as further arguments
    )
    memory_bytes: int | None = 2 << 30  # address space of the process; None: not limited
    limit_s: float = 0.0  # seconds that it may take where that is more than reward_worker.timeout_s
    extra_s: float = 0.0  # for functions that keep the limit themselves: what the pool grants beyond it
    then: Callable[[float], float] | None = None  # applied to the value, in the process of the caller

    def followed_by(self, then: Callable[[float], float]) -> Call:
        """The same call, with `then` applied to its value."""
        return replace(self, then=then)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A judgement that a thread of this process waits for: of a model, or of an endpoint. Producer: rewards. Consumer: Scorer."""

    function: Callable[[], float]  # keeps a limit of its own; raises DataError or InfrastructureError

    def followed_by(self, then: Callable[[float], float]) -> Ask:
        """The same question, with `then` applied to its value."""
        return Ask(function=lambda: then(self.function()))


class Reward(abc.ABC):
    """Judges samples. Subclasses are frozen dataclasses; their fields are the parameters in the configuration."""

    __slots__ = ()

    @abc.abstractmethod
    def __call__(self, sample: Sample) -> float | Call | Ask:
        """The value of the sample, or what finds it. Raises DataError for a sample that cannot be judged."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules, or `module:function` to call, that worker processes should have loaded before the first call."""
        return ()

    @property
    def sandboxed(self) -> bool:
        """Whether it runs programs that the model wrote."""
        return False

    def check(self) -> None:  # noqa: B027 - most rewards need nothing
        """Try at the start what judging will need besides. Raises ConfigError, with what to do, where it is missing."""
