"""Routers of a mixture of experts: compare the experts that they choose with vLLM's choices, or use vLLM's.

A token whose experts differ is computed by other weights than in the rollout, so its log-probability differs too, and
by more than rounding; such differences make reinforcement learning of mixtures collapse (arXiv 2507.18071, 2510.11370).

    router --> (logits, weights, experts) --> experts' layer
                 |                    ^
                 +-- weights of vLLM's choice, by the same formula: the gradient goes through the learner's logits

A choice is recorded at the positions that predict completion tokens. Elsewhere, in prompts, the learner's own stands.
If completions share their prompt's last row, the choice recorded for the first of them is used.
Shapes: R rows of a pass, Q of them with a recorded choice, L layers of the model, K experts of a token, E experts.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from learner.batch import MicroBatch, RecordedExperts, Sequence
from learner.metrics import MetricSums
from r1ray.errors import ConfigError, IntegrityError

ROUTING = "mismatch/routing"
"""Metric: share of (token, layer) pairs whose set of experts differs between vLLM and the learner."""

Gate = Callable[[Tensor, Tensor], Tensor]
"""(logits [R, E], experts [R, K]) -> weights of the experts [R, K]."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_TRIED = 16


class Routing:
    """Watches all routers of `hf`, in every forward pass that `follow` announces."""

    def __init__(self, hf: Any, *, replay: bool) -> None:
        """`replay`: the routers use the recorded choices. Raises ConfigError for routers whose weights are unknown."""
        self._recorded: RecordedExperts | None = None
        self._chosen: dict[int, Tensor] = {}  # [Q, K] by layer: the routers' own
        found = list(_routers(hf))
        if not found:
            raise ConfigError(
                f"algorithm.routing: model {hf.config.model_type} has no router that the learner knows: set it to "
                "ignore"
            )
        for name, router in found:
            match = _LAYER.search(f".{name}")
            assert match is not None, f"router {name} is in no numbered layer"
            gate = _gate(name, router) if replay else None
            router.register_forward_hook(partial(self._route, int(match[1]), gate))

    def follow(self, recorded: RecordedExperts | None) -> None:
        """The next forward pass, and the backward pass behind it, are of the rows in `recorded`."""
        self._recorded = recorded
        self._chosen = {}

    def compare(self, batch: MicroBatch, version: int, sums: MetricSums) -> None:
        """Add the last forward pass, over the tokens that policy `version` sampled; the learner is that policy."""
        recorded = batch.tokens.experts
        if recorded is None or not batch.sequences:
            return
        same_Q = batch.versions_T[recorded.token_Q] == version
        counted_Q = batch.represents_S[batch.tokens.segment_T[recorded.token_Q]] * same_Q
        for layer, own_QK in self._chosen.items():
            theirs_QK = recorded.experts_QLK[:, layer].to(own_QK.dtype)
            differ_Q = (own_QK.sort(-1).values != theirs_QK.sort(-1).values).any(-1)
            sums.add(ROUTING, (differ_Q * counted_Q).sum(), counted_Q.sum())

    def _route(self, layer: int, gate: Gate | None, router: nn.Module, inputs: Any, output: Any) -> Any:
        recorded = self._recorded
        if recorded is None:
            return output
        experts_RK = _experts(output)
        self._chosen[layer] = experts_RK.detach().index_select(0, recorded.row_Q)
        if gate is None:
            return output
        row_F, theirs_FK = recorded.row_Q[recorded.first_F], recorded.experts_QLK[recorded.first_F, layer]
        replayed_RK = experts_RK.index_copy(0, row_F, theirs_FK.to(experts_RK.dtype))
        return _with_choice(output, gate(_logits(router, inputs, output), replayed_RK), replayed_RK)


def check_replayable(sequences: Iterable[Sequence], step: int) -> None:
    """Raise IntegrityError if the experts of a completion were not recorded for all of its tokens."""
    if any(s.experts is None or s.experts.every != 1 for s in sequences):
        raise IntegrityError(
            f"step {step}: algorithm.routing = replay, but a completion came without the experts of all its tokens: a "
            "recorded run must have been sampled with algorithm.routing = replay too"
        )


def _routers(hf: Any) -> Iterator[tuple[str, nn.Module]]:
    """(name, router) of each layer of experts: a block with children `experts` and `gate`,
    in AutoEP's form `router`.
    """
    for name, block in hf.named_modules():
        child = "router" if hasattr(block, "router") else "gate"
        router = getattr(block, child, None)
        if isinstance(router, nn.Module) and isinstance(getattr(block, "experts", None), nn.Module):
            yield f"{name}.{child}", router


def _is_autoep(output: Any) -> bool:
    """Whether a router is DeepSpeed's: (weights, experts, tokens of each expert). Else (logits, weights, experts)."""
    dimensions: int = output[2].dim()
    return dimensions == 1


def _experts(output: Any) -> Tensor:
    experts: Tensor = output[1 if _is_autoep(output) else 2]
    return experts


def _logits(router: Any, inputs: Any, output: Any) -> Tensor:
    logits: Tensor = router.gate(inputs[0]) if _is_autoep(output) else output[0]
    return logits


def _with_choice(output: Any, weights_RK: Tensor, experts_RK: Tensor) -> Any:
    """The output of a router that chose these experts."""
    if not _is_autoep(output):
        return output[0], weights_RK.to(output[1].dtype), experts_RK
    counts = torch.bincount(experts_RK.flatten(), minlength=len(output[2])).to(output[2].dtype)
    return weights_RK.to(output[0].dtype), experts_RK, counts


def _gate(name: str, router: nn.Module) -> Gate:
    """The formula of a router's weights: the one that computes the same on random inputs. Raises ConfigError."""
    tried = copy.deepcopy(router).to_empty(device="cpu").float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tried.parameters():
            parameter.normal_(generator=generator)
        for buffer in tried.buffers():
            buffer.zero_()
        weight = next(p for p in tried.parameters() if p.dim() == 2)
        inputs = (torch.randn(_TRIED, weight.shape[1], generator=generator) / 8,)
        output = tried(*inputs)
        logits, experts = _logits(tried, inputs, output), _experts(output)
        weights = output[0 if _is_autoep(output) else 1]
    for score in (partial(torch.softmax, dim=-1), torch.sigmoid):
        for normalised in (False, True):
            ratio = float(weights[0, 0] / _weights(score, normalised, 1.0, logits, experts)[0, 0])
            scale = float(f"{ratio:.5g}")
            gate = partial(_weights, score, normalised, scale)
            if torch.allclose(gate(logits, experts), weights, rtol=1e-5, atol=1e-7):
                return gate
    raise ConfigError(
        f"algorithm.routing = replay: how {name} ({type(router).__name__}) weights its experts is not known to the "
        "learner: "
        "set it to compare"
    )


def _weights(
    score: Callable[[Tensor], Tensor], normalised: bool, scale: float, logits: Tensor, experts: Tensor
) -> Tensor:
    chosen = score(logits.to(torch.promote_types(logits.dtype, torch.float32))).gather(-1, experts)
    if normalised:
        chosen = chosen / (chosen.sum(-1, keepdim=True) + 1e-20)
    return chosen * scale
