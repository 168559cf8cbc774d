"""The loops that the learner is compared with: transformers and torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner import attention
from learner.batch import MicroBatch
from r1ray.types import ScoredGroup

CLIP = 0.2


def bare_loop(folder: Path, batches: Sequence[MicroBatch]) -> Callable[[], None]:
    """One optimiser step on packed micro-batches; attention is the learner's: transformers has none for them."""
    model, optimizer = _load(folder, attention.choose("packed", cuda=False))
    total = sum(len(batch.tokens.target_M) for batch in batches)

    def step() -> None:
        for batch in batches:
            t = batch.tokens
            hidden = model.model(
                input_ids=t.input_ids_R[None], position_ids=t.position_ids_R[None], use_cache=False, layout=t.layout
            ).last_hidden_state[0]
            log_p = (model.lm_head(hidden[t.source_M]) / t.temperature_M[:, None]).log_softmax(-1)
            new = log_p.gather(1, t.target_M[:, None])[:, 0]
            _loss(new, batch.behavior_logprobs_T, batch.advantages_T, total).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def padded_loop(folder: Path, groups: Sequence[ScoredGroup], micro_batch_tokens: int) -> Callable[[], None]:
    """One optimiser step on rectangles of completions in the order of their groups, each as large as a micro-batch."""
    model, optimizer = _load(folder, "sdpa")
    rows = [
        (g.rollout.prompt.token_ids, completion, score.reward)
        for g in groups
        for completion, score in zip(g.rollout.completions, g.scores, strict=True)
    ]
    longest = max(len(prompt) + len(c.token_ids) for prompt, c, _ in rows)
    per_batch = max(1, micro_batch_tokens // longest)
    batches = [_rectangle(rows[i : i + per_batch], longest) for i in range(0, len(rows), per_batch)]
    total = sum(int(mask.sum()) for _, _, mask, _, _ in batches)

    def step() -> None:
        for ids, attended, mask, behavior, advantage in batches:
            logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, :-1]
            log_p = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
            _loss(log_p[mask], behavior, advantage, total).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _load(folder: Path, implementation: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=implementation)
    model.train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)


def _loss(new: Tensor, old: Tensor, advantages: Tensor, total: int) -> Tensor:
    ratio = (new - old).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).sum() / total


def _rectangle(rows: Sequence[Any], longest: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(tokens [B, L], attended [B, L], completion tokens as predicted [B, L - 1], their behaviour, their advantage)."""
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    attended = torch.zeros_like(ids)
    mask = torch.zeros(len(rows), longest - 1, dtype=torch.bool)
    for i, (prompt, completion, _) in enumerate(rows):
        p, c = len(prompt), len(completion.token_ids)
        ids[i, :p] = torch.from_numpy(prompt)
        ids[i, p : p + c] = torch.from_numpy(completion.token_ids)
        attended[i, : p + c] = 1
        mask[i, p - 1 : p + c - 1] = True
    behavior = torch.cat([torch.from_numpy(c.behavior_logprobs) for _, c, _ in rows])
    advantage = torch.cat([torch.full((len(c.token_ids),), reward) for _, c, reward in rows])
    return ids, attended, mask, behavior, advantage
