"""Measure the skill of a base model that reinforcement learning will amplify."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from learner.model import PolicyModel
from learner.tiny import bilingual
from learner.tiny.corpus import PLAIN, PROMPT, Document, Errors, steps_style
from learner.tiny.flavors import FlavorName
from learner.tiny.pretrain import pack
from learner.tiny.tokenizer import encode
from r1ray.tasks.bus import BusTask, numbers

_PROBLEMS = 256
_RIGHT = Errors(pairs=0.0, steps=0.0, careful=0.0)


def skill(model: PolicyModel, tokenizer: Any, flavor: FlavorName = "plain") -> float:
    """Probability that the model, made to work step by step, is right at temperature 1: mean over held-out problems.

    Exact and in one forward pass, without sampling: everything but the totals is written for the model, and the chance
    that it draws every digit of every total right is the product of their probabilities.
    """
    task, rng = BusTask(n=(4, 7)), random.Random(0)
    problems = [task.problem(index, "heldout", 0).prompt for index in range(_PROBLEMS)]
    workings = [Document(prompt=PROMPT.format(p), response=_working(flavor, rng, p)) for p in problems]
    tokens = pack(encode(tokenizer, workings))
    with torch.no_grad():
        logprob_T, _ = model(tokens)
    in_total_T = _in_totals(tokenizer.convert_ids_to_tokens(tokens.target_M.tolist()))
    counted_T = np.where(in_total_T, logprob_T.numpy(), 0.0)
    return float(np.exp(np.bincount(tokens.segment_T.numpy(), weights=counted_T)).mean())


def _working(flavor: FlavorName, rng: random.Random, problem: str) -> str:
    wording = bilingual.spoken(bilingual.speaker(rng, "en")) if flavor == "bilingual" else PLAIN
    return steps_style(rng, numbers(problem), _RIGHT, wording)


def _in_totals(words: list[str]) -> list[bool]:
    """Mask of the digits of totals: tokens that follow "=" or "<answer>", and the digits after them."""
    flags = [False]
    for before, word in pairwise(["", *words]):
        flags.append(word.isdigit() and (before in ("=", "<answer>") or flags[-1]))
    return flags[1:]
