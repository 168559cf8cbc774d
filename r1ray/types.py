"""Records that the parts of r1ray exchange.

Shapes: P prompt tokens, T completion tokens, G completions of one prompt (a group).
Index t of a log-probability array holds the log-probability *of* token t given the tokens before it.
This module imports no ray, torch, vllm or deepspeed, because every part imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length", "abort"]
Message = dict[str, str]

WIRE_VERSION = 2
"""Version of the msgpack layout below; a reader refuses any other."""

FOREIGN_POLICY = -1
"""Version of a policy of another run, in the groups that a replay trains on. Such tokens have no staleness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTask:
    """One prompt to answer. Producer: PromptSource. Consumers: RolloutWorker, RewardWorker."""

    prompt_id: str  # stable name of the problem in its dataset
    index: int  # position in the (infinite) epoch order; what the ledger leases
    epoch: int  # number of completed passes over the dataset before this index
    token_ids: Int32Array  # [P] the rendered and tokenised prompt
    messages: tuple[Message, ...]  # the chat form: {"role": ..., "content": ...}
    answer: Any  # ground truth for the verifiers: str, number, or dict of msgpack types
    task: str  # name of the data source; selects the rewards of a mixture
    meta: dict[str, Any] = field(default_factory=dict)  # msgpack types only


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled by policy `version`."""

    version: int  # or FOREIGN_POLICY
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The experts that vLLM's routers chose in the passes that sampled every n-th token of a completion.

    C recorded tokens, L layers of the model (zeros in those without experts), K experts of a token, in any order.
    """

    ids: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]  # [C, L, K]
    every: int  # n: the tokens 0, n, 2n, ... are recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled completion."""

    token_ids: Int32Array  # [T]
    behavior_logprobs: Float32Array  # [T] under the policy that sampled each token, temperature applied
    text: str  # detokenised, special tokens kept, without the token that ended the completion
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]  # cover [0, T) in order
    experts: RoutedExperts | None = None  # None: not recorded

    @property
    def min_policy_version(self) -> int:
        """Policy that sampled the first token."""
        return self.version_spans[0].version

    @property
    def max_policy_version(self) -> int:
        """Policy that sampled the last token."""
        return self.version_spans[-1].version


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters of completions."""

    temperature: float
    top_p: float = 1.0
    max_new_tokens: int = 0  # counted in tokens
    seed: int | None = None  # None: the engine's own stream


QUEUED_S, GENERATED_S, SCORED_S = "queued", "generated", "scored"
"""Keys of `RolloutGroup.timings`: from the lease to the engine, in the engine, and in the reward worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """G completions of one prompt. Producer: RolloutWorker. Consumer: RewardWorker."""

    group_id: str  # identifies one lease of one prompt index: "<index>-<attempt>"
    prompt: PromptTask
    completions: tuple[Completion, ...]  # [G]
    sampling: Sampling
    worker_id: str
    timings: dict[str, float]  # seconds by stage: QUEUED_S, GENERATED_S and, once it is scored, SCORED_S

    @property
    def min_policy_version(self) -> int:
        """Oldest policy that sampled a token of the group."""
        return min(c.min_policy_version for c in self.completions)

    @property
    def max_policy_version(self) -> int:
        """Newest policy that sampled a token of the group."""
        return max(c.max_policy_version for c in self.completions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The rewards of one completion."""

    reward: float  # the weighted sum that is trained on
    parts: dict[str, float]  # unweighted rewards by name
    error: str | None = None  # class and text of a failure; a group with an error is never trained on
    error_kind: str | None = None  # `error` without details of the sample, so that equal failures count as one kind

    def of_kind(self, kind: str) -> float | None:
        """The reward of this kind, whatever its label; None if there is none.

        Worked example: parts {"accuracy/maths": 1.0} have 1.0 of the kind accuracy. Of several rewards of a kind the
        lowest counts: an answer is right if all of them accept it.
        """
        return part_of_kind(self.parts, kind)


def part_of_kind(parts: Mapping[str, float], kind: str) -> float | None:
    """See `Score.of_kind`; the keys of `parts` are `kind` or `kind/label`."""
    return min((value for name, value in parts.items() if name.partition("/")[0] == kind), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A group with its scores. Producer: RewardWorker. Consumers: the ledger, then the learner."""

    rollout: RolloutGroup
    scores: tuple[Score, ...]  # [G]
    wire_version: int = WIRE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """The facts about a group that a batch is planned with, without its payload.

    Producer: ledger. Consumer: learner.
    """

    group_id: str
    index: int
    prompt_tokens: int  # P
    completion_tokens: tuple[int, ...]  # [G] T of each
    rewards: tuple[float, ...]  # [G] raw
    min_policy_version: int
    max_policy_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchManifest:
    """The groups of one training step in a fixed order. Every learner rank gets the same manifest."""

    step: int  # trains policy `step` into policy `step + 1`
    groups: tuple[GroupSummary, ...]
