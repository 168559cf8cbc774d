"""Registry: make a reward from its name and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1ray.config.rules import LEARNED_KINDS
from r1ray.config.schema import RewardConfig
from r1ray.errors import ConfigError
from r1ray.rewards.answers.accuracy import VERIFIERS
from r1ray.rewards.base import Reward
from r1ray.rewards.execution.code import CodeVerifier
from r1ray.rewards.learned.fluency import Fluency, LanguageModel
from r1ray.rewards.learned.judge import Budget, JudgeReward, UnansweredPrompts
from r1ray.rewards.learned.preference import ModelReward, Server
from r1ray.rewards.params import make
from r1ray.rewards.plugins import UserReward
from r1ray.rewards.text.format import Format
from r1ray.rewards.text.language import Language
from r1ray.rewards.text.length import CosineLength, Length
from r1ray.rewards.text.repetition import Repetition
from r1ray.util.hints import suggestion


def _accuracy(params: Mapping[str, Any], owner: str) -> Reward:
    name = params.get("verifier", "math")
    if name not in VERIFIERS:
        raise ConfigError(
            f"{owner}: verifier = {name!r} is unknown{suggestion(str(name), VERIFIERS)}; choose one of "
            f"{', '.join(VERIFIERS)}"
        )
    rest = {key: value for key, value in params.items() if key != "verifier"}
    return make(VERIFIERS[name], rest, f"{owner} (verifier {name})")


def _cosine_length(params: Mapping[str, Any], owner: str) -> Reward:
    inner = {"verifier": params.get("verifier", "math"), **params.get("verifier_params", {})}
    rest = {key: value for key, value in params.items() if key not in ("verifier", "verifier_params")}
    return make(CosineLength, rest, owner, inner=_accuracy(inner, owner))


def _model(params: Mapping[str, Any], owner: str) -> Reward:
    return make(ModelReward, params, owner, server=Server())


def _fluency(params: Mapping[str, Any], owner: str) -> Reward:
    return make(Fluency, params, owner, server=LanguageModel())


def _judge(params: Mapping[str, Any], owner: str) -> Reward:
    return make(JudgeReward, params, owner, budget=Budget(), unanswered=UnansweredPrompts())


def _plain(cls: type[Reward]) -> Callable[[Mapping[str, Any], str], Reward]:
    return lambda params, owner: make(cls, params, owner)


REWARDS: dict[str, Callable[[Mapping[str, Any], str], Reward]] = {
    "accuracy": _accuracy,
    "format": _plain(Format),
    "language": _plain(Language),
    "length": _plain(Length),
    "cosine_length": _cosine_length,
    "repetition": _plain(Repetition),
    "model": _model,
    "judge": _judge,
    "fluency": _fluency,
}
"""Kind -> function that makes the reward from (parameters, name for messages)."""


def kind_of(name: str) -> str:
    """The kind of a reward. `accuracy/code` has the kind accuracy: labels distinguish several rewards of a kind."""
    return name if ":" in name else name.partition("/")[0]


def build(name: str, params: Mapping[str, Any]) -> Reward:
    """Make the reward `name`. Raises ConfigError for an unknown name or a bad parameter."""
    if ":" in name:
        return UserReward(target=name, params=params)
    kind = kind_of(name)
    if kind not in REWARDS:
        raise ConfigError(
            f"there is no reward {name!r}{suggestion(kind, REWARDS)}; choose one of {', '.join(REWARDS)}, or "
            "module:function"
        )
    return REWARDS[kind](params, name)


def longest_answer_s(rewards: Sequence[RewardConfig]) -> float:
    """Longest time in seconds for one score of a model or an endpoint; 0 if there is none. Raises
    ConfigError like `build`.
    """
    asked = [build(r.name, r.params) for r in rewards if kind_of(r.name) in LEARNED_KINDS]
    return max((r.timeout_s for r in asked if isinstance(r, ModelReward | JudgeReward | Fluency)), default=0.0)


def longest_program_s(rewards: Sequence[RewardConfig]) -> float:
    """Longest time in seconds for the tests of one program; 0 if no reward runs programs."""
    verifiers = [build(r.name, r.params) for r in rewards if kind_of(r.name) in ("accuracy", "cosine_length")]
    inner = [r.inner if isinstance(r, CosineLength) else r for r in verifiers]
    return max((r.suite_timeout_s for r in inner if isinstance(r, CodeVerifier)), default=0.0)
