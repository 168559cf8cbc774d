"""Policy model: a Hugging Face causal language model that computes log-probabilities of given tokens.

Shapes: N packed tokens, T completion tokens (whose log-probabilities are wanted), H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from learner import attention, recompute
from learner.attention import PackedLayout
from learner.batch import PackedTokens, RecordedExperts
from learner.empty import empty_model
from learner.lora import add_adapters
from learner.supported import check_logits, check_packable
from r1ray.config.schema import ModelConfig
from r1ray.data.tokenizer import load_tokenizer, unused_ids
from r1ray.preflight.memory import logits_at_once

UNUSED_LOGIT = -1e30
"""Logit of an id without a token: its exp is exactly 0, and unlike infinity 0 x logit is 0 too."""


class TargetLogprobs(torch.autograd.Function):
    """(hidden_TH, weight_VH, target_T, temperature_T) -> (logprob_T, entropy_T), never holding all T x V logits.

    With `greedy` the second result is instead 1.0 if the target is the likeliest token, else 0.0, without a gradient.

    Forward keeps two numbers a token; backward computes the logits z again, block by block. With p = softmax(z /
    temperature), d logprob / dz = (onehot - p) / temperature and d entropy / dz = -p (log p + entropy) / temperature.

    `unused_U` (int64) are ids without a token, as the rollout engine masks them: their probability
    is exactly 0, they contribute no gradient, and no target may be one of them.

    With `in_place` the backward pass adds the gradient of `weight_VH`, a parameter, to its `grad` itself: autograd
    would keep it, as large as the weight, until the end of the pass if the embedding shares the weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        target_T: Tensor,
        temperature_T: Tensor,
        greedy: bool,
        unused_U: Tensor,
        in_place: bool = False,
    ) -> Any:
        """Compute both results block by block; keep the normaliser and the entropy of each token."""
        logprob_T = torch.empty(len(hidden_TH), dtype=_computed_in(hidden_TH), device=hidden_TH.device)
        entropy_T, normaliser_T = torch.empty_like(logprob_T), torch.empty_like(logprob_T)
        for rows in _blocks(hidden_TH, weight_VH):
            logits = _logits(hidden_TH[rows], weight_VH, temperature_T[rows], unused_U)
            largest = logits.amax(-1)
            logits.sub_(largest[:, None])
            target = logits.gather(-1, target_T[rows, None])[:, 0]
            exp = logits.exp()  # beside `logits` the only block of this size
            total = exp.sum(-1)
            logprob_T[rows] = target - total.log()
            normaliser_T[rows] = largest + total.log()
            entropy_T[rows] = (
                (target >= 0).to(target.dtype) if greedy else total.log() - exp.mul_(logits).sum(-1) / total
            )
        ctx.save_for_backward(hidden_TH, weight_VH, target_T, temperature_T, unused_U, normaliser_T, entropy_T)
        ctx.set_materialize_grads(False)
        ctx.in_place = in_place
        if greedy:
            ctx.mark_non_differentiable(entropy_T)
        return logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, d_logprob_T: Tensor | None, d_entropy_T: Tensor | None) -> Any:
        """Compute the gradients of hidden states and weight block by block."""
        hidden_TH, weight_VH, target_T, temperature_T, unused_U, normaliser_T, entropy_T = ctx.saved_tensors
        d_hidden_TH = torch.empty_like(hidden_TH)
        d_weight_VH = weight_VH.grad if ctx.in_place else None
        if d_weight_VH is None and ctx.needs_input_grad[1]:  # else it is frozen
            d_weight_VH = torch.zeros_like(weight_VH, dtype=_computed_in(hidden_TH))
        for rows in _blocks(hidden_TH, weight_VH):
            log_p = _logits(hidden_TH[rows], weight_VH, temperature_T[rows], unused_U).sub_(normaliser_T[rows, None])
            d_logits = _d_logits(log_p, target_T[rows], rows, d_logprob_T, d_entropy_T, entropy_T)
            d_logits = d_logits.div_(temperature_T[rows, None]).to(hidden_TH.dtype)
            d_hidden_TH[rows] = d_logits @ weight_VH
            if d_weight_VH is None:
                continue
            if d_weight_VH.dtype == d_logits.dtype:
                d_weight_VH.addmm_(d_logits.T, hidden_TH[rows])  # without a second V x H for the product
            else:
                d_weight_VH += d_logits.T @ hidden_TH[rows]
        if ctx.in_place:
            weight_VH.grad = d_weight_VH
        d_weight = None if ctx.in_place or d_weight_VH is None else d_weight_VH.to(weight_VH.dtype)
        return d_hidden_TH, d_weight, None, None, None, None, None


def _d_logits(
    log_p: Tensor,
    target: Tensor,
    rows: slice,
    d_logprob_T: Tensor | None,
    d_entropy_T: Tensor | None,
    entropy_T: Tensor,
) -> Tensor:
    """The gradient of a block of logits, before the temperature. Overwrites `log_p`, and allocates one more at most."""
    d_logprob = None if d_logprob_T is None else d_logprob_T[rows, None]
    if d_entropy_T is None:
        assert d_logprob is not None, "a gradient of neither result"
        d_logits = log_p.exp_().mul_(-d_logprob)
    else:
        p = log_p.exp()
        factor = log_p.add_(entropy_T[rows, None]).mul_(d_entropy_T[rows, None])
        d_logits = p.mul_(factor if d_logprob is None else factor.add_(d_logprob)).neg_()
    return d_logits if d_logprob is None else d_logits.scatter_add_(1, target[:, None], d_logprob)


def _computed_in(hidden_TH: Tensor) -> torch.dtype:
    return torch.promote_types(hidden_TH.dtype, torch.float32)


def _blocks(hidden_TH: Tensor, weight_VH: Tensor) -> list[slice]:
    rows, size = len(hidden_TH), max(1, logits_at_once(cuda=hidden_TH.is_cuda) // len(weight_VH))
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def _logits(hidden_TH: Tensor, weight_VH: Tensor, temperature_T: Tensor, unused_U: Tensor) -> Tensor:
    logits = (hidden_TH @ weight_VH.T).to(_computed_in(hidden_TH)).div_(temperature_T[:, None])
    return logits.index_fill_(-1, unused_U, UNUSED_LOGIT)


class LogprobHead(nn.Module):
    """Stands in for the model's `lm_head`, under its name and with its weight [V, H], tied or not.

    The whole computation is inside one module, so that ZeRO 3 gathers the weight once before and once behind it.
    """

    def __init__(self, weight: nn.Parameter, unused_ids: Sequence[int] = ()) -> None:
        super().__init__()
        self.weight = weight
        self.in_place = False  # see TargetLogprobs; set where nothing else waits for the weight's gradient
        self.unused_U: Tensor
        self.register_buffer("unused_U", torch.tensor(unused_ids, dtype=torch.int64), persistent=False)

    def forward(
        self, hidden_TH: Tensor, target_T: Tensor, temperature_T: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See TargetLogprobs."""
        logprob_T, second_T = TargetLogprobs.apply(
            hidden_TH, self.weight, target_T, temperature_T, greedy, self.unused_U, self.in_place
        )
        return logprob_T, second_T


class FollowsPasses(Protocol):
    """What is informed of each forward pass before it begins."""

    def follow(self, recorded: RecordedExperts | None) -> None:
        """The next pass is of tokens with these choices of experts."""
        ...


class PackedModel(nn.Module):
    """`hf`, a Hugging Face model that reads packed sequences."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf
        self.routing: FollowsPasses | None = None  # of a mixture of experts, if its routers are watched
        self._recomputer = recompute.install(hf)

    def hidden(self, input_ids_R: Tensor, position_ids_R: Tensor, layout: PackedLayout) -> Tensor:
        """The last hidden states [R, H] of this rank's rows of the sequences that `layout` delimits."""
        backbone = getattr(self.hf, self.hf.base_model_prefix)
        with self._recomputer.hooks():
            hidden_RH: Tensor = backbone(
                input_ids=input_ids_R[None],
                position_ids=position_ids_R[None],
                use_cache=False,
                **layout.kwargs(self.hf.config._attn_implementation),
            ).last_hidden_state[0]
        return hidden_RH


class PolicyModel(PackedModel):
    """`hf`, which computes the log-probabilities of the completion tokens of a packed micro-batch."""

    def __init__(self, hf: Any, unused_ids: Sequence[int] = ()) -> None:
        """`unused_ids`: ids without a token, which get probability 0 (`r1ray.data.tokenizer.unused_ids`)."""
        super().__init__(hf)
        self.hf.set_output_embeddings(LogprobHead(hf.get_output_embeddings().weight, unused_ids))

    def forward(self, tokens: PackedTokens, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies, float32 [T] each, at the sampling temperature of each token.

        With `greedy` the second is 1.0 where the token is the likeliest, else 0.0: supervised training counts those.
        """
        if self.routing is not None:
            self.routing.follow(tokens.experts)
        hidden_RH = self.hidden(tokens.input_ids_R, tokens.position_ids_R, tokens.layout)
        head = self.hf.get_output_embeddings()
        wanted_MH = hidden_RH.index_select(0, tokens.source_M)
        results = head(wanted_MH, tokens.target_M, tokens.temperature_M, greedy)
        logprob_T, second_T = results if tokens.shares is None else tokens.shares.gather(*results)
        return logprob_T, second_T


def empty_policy(model: ModelConfig, path: Path) -> PolicyModel:
    """The policy of the folder `path` (Hugging Face format) without its weights, with the configured dtype and
    attention.

    Raises ConfigError for folders that cannot be read and models that are not computed exactly (`learner.supported`).
    """
    from transformers import AutoModelForCausalLM

    hf = empty_for_training(AutoModelForCausalLM, model, path, "a causal language model")
    check_logits(hf)
    return PolicyModel(hf, unused_ids(load_tokenizer(str(path)), len(hf.get_output_embeddings().weight)))


def empty_for_training(auto: Any, model: ModelConfig, path: Path, kind: str, **options: Any) -> Any:
    """The model of a folder without its weights, made by transformers' class `auto` with the settings of `model`.

    `options` change the folder's configuration. Raises ConfigError for a folder that holds no model of that kind, and
    for layers that mix packed sequences.
    """
    hf = empty_model(
        auto,
        model,
        path,
        kind=kind,
        attention=attention.choose(model.attention, cuda=torch.cuda.is_available()),
        **options,
    )
    check_packable(hf, model.max_length)
    _silence_dropout(hf)
    if model.lora.rank is not None:
        add_adapters(hf, model.lora)
    if model.activation_checkpointing:
        hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return hf.train()


def _silence_dropout(hf: Any) -> None:
    """Train mode is needed for activation checkpointing, but a policy must give a token the same probability twice."""
    for module in hf.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if getattr(module, "attention_dropout", 0.0):
            module.attention_dropout = 0.0
