"""A rank of reward-model training: rows in, a model folder and a report out. One process each, any ZeRO stage."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learner import checkpoint
from learner.engine import Engine
from learner.export import WEIGHTS
from learner.files import write_aside
from learner.group import init_process_group, named_failures
from learner.packing import SequenceRef, divide
from learner.preference.model import PackedExamples, load_base, pack_examples, pairwise_loss, pointwise_loss
from learner.preference.report import measure
from learner.preference.rows import Example, hold_out, read_examples
from learner.schedules import learning_rate
from r1ray.config.schema import Config, LearnerConfig, ModelConfig, OptimizerConfig
from r1ray.data.tokenizer import load_tokenizer
from r1ray.errors import ConfigError, NumericError
from r1ray.rewards.learned.conversation import Part
from r1ray.rewards.learned.preference import REPORT, Kind
from r1ray.run.checkpoints import find_latest

COLLECTIVE_S = 600.0
KEPT = 2
"""Checkpoints that stay while it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a reward model is trained; batch size, learning rate, epochs and length are those of R1's reward models."""

    kind: Kind
    judge: Part
    epochs: int = 1
    batch_size: int = 256  # rows of one optimiser step
    lr: float = 6e-6
    max_length: int = 8192  # tokens of a conversation; longer rows are left out and counted
    micro_batch_tokens: int = 16384  # of one forward pass; a pair is never divided
    held_out: float = 0.05  # share of the prompts
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    ranks: int = 1
    zero_stage: int = 0

    def __post_init__(self) -> None:
        rows = 2 if self.kind == "pairwise" else 1
        if self.micro_batch_tokens < rows * self.max_length:
            raise ConfigError(
                f"micro_batch_tokens = {self.micro_batch_tokens} holds no {rows} x max_length = {rows * self.max_length} tokens"
            )
        if min(self.epochs, self.batch_size, self.max_length) < 1 or not (0 < self.held_out < 1 and self.lr > 0):
            raise ConfigError("epochs, batch_size, max_length and lr must be positive, held_out between 0 and 1")
        if self.ranks < 1 or self.zero_stage not in range(4):
            raise ConfigError(f"ranks = {self.ranks} must be positive, zero_stage = {self.zero_stage} 0 to 3")
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ConfigError(
                "--dtype bfloat16 with --zero-stage 0 keeps no float32 weights: give --zero-stage 1 (to 3), or --dtype float32"
            )


_DUMMY_SEQUENCE = Example(prompt="", sequences=((0,), (0,)), lengths=(1, 1), safe=False)
"""Keeps a rank in the collectives of a micro-batch that it has nothing for."""


class RewardModelRank:
    """Rank `rank` of `settings.ranks`. After `setup`, all methods are collectives: every rank calls them, in the same order."""

    def __init__(self, *, data: Path, base: Path, settings: Settings, rank: int) -> None:
        self._data = data
        self._base = base
        self._settings = settings
        self._rank = rank
        self._step = 0

    def setup(self, address: str, port: int) -> dict[str, int]:
        """Read the rows, join the other ranks at `address:port` and load the model; says how many steps there are.

        Raises ConfigError for rows or a model that cannot be used, InfrastructureError where the ranks do not meet.
        """
        settings = self._settings
        tokenizer = load_tokenizer(str(self._base))
        examples, self._too_long = read_examples(
            self._data, tokenizer, kind=settings.kind, judge=settings.judge, max_length=settings.max_length
        )
        self._train, self._held_out = hold_out(examples, settings.held_out, settings.seed)
        self._per_epoch = math.ceil(len(self._train) / settings.batch_size)
        self._steps = self._per_epoch * settings.epochs
        pad = getattr(tokenizer, "pad_token_id", None)
        # A model that must be divided has no memory for its activations either.
        model = ModelConfig(
            path=str(self._base),
            dtype=settings.dtype,
            max_length=settings.max_length,
            activation_checkpointing=settings.zero_stage == 3,
        )
        module = load_base(model, tokenizer.eos_token_id if pad is None else pad, settings.seed)
        self._learner = LearnerConfig(
            ranks=settings.ranks, zero_stage=settings.zero_stage, optimizer=OptimizerConfig(lr=settings.lr)
        )
        device = init_process_group(
            rank=self._rank, world_size=settings.ranks, address=address, port=port, timeout_s=COLLECTIVE_S
        )
        with named_failures("setup of the reward model"):
            self._engine = Engine(module, model=model, learner=self._learner, device=device, world_size=settings.ranks)
        self._config = replace(Config(), model=model, learner=self._learner)
        return {"steps": self._steps}

    def load(self, checkpoints: Path, run_id: str) -> int:
        """Go on from the newest whole checkpoint of training `run_id`, if there is one; how many steps are done.

        Raises IntegrityError for one of another model.
        """
        newest = find_latest(checkpoints, run_id=run_id).path
        if newest is not None:
            with named_failures(f"loading {newest}"):
                self._step, _ = checkpoint.load(newest, engine=self._engine, reference=None, run_id=run_id)
        return self._step

    def save(self, checkpoints: Path, run_id: str) -> None:
        """Write a checkpoint of training `run_id` after the steps that are done; it and the one before it stay."""
        with named_failures(f"saving step {self._step} of the reward model"):
            checkpoint.save(
                checkpoints / f"step_{self._step:06d}",
                engine=self._engine,
                reference=None,
                policy_version=self._step,
                rng=self._engine.gather_ranks(torch.get_rng_state().to(self._engine.device)).cpu(),
                run_id=run_id,
                config=self._config,
                writer=self._rank == 0,
            )
            if self._rank == 0:
                checkpoint.prune(checkpoints, keep=KEPT, keep_every=None)

    def train_step(self) -> float:
        """The next step; its mean loss, the same on every rank. Raises NumericError where a gradient is not finite."""
        settings, step = self._settings, self._step
        epoch, place = divmod(step, self._per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(self._train))
        chosen = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        batch = [self._train[i] for i in chosen]
        mine = torch.zeros(1, dtype=torch.float64, device=self._engine.device)

        def share(model: Any, part: tuple[list[int], PackedExamples]) -> Tensor:
            indices, packed = part
            loss = _loss(settings.kind, model(packed), packed) * (len(indices) > 0) / len(batch)
            mine.add_(loss.detach())
            return loss

        with named_failures(f"step {step} of the reward model"):
            lr = learning_rate(step, self._steps, self._learner.optimizer)
            report = self._engine.step(self._parts(batch), share, lr=lr)
            if not report.applied:
                message = f"step {step} of {self._steps} has a gradient that is not finite: lower --lr, or use float32"
                raise NumericError(message)
            self._step += 1
            return float(self._engine.all_reduce(mine, "sum"))

    def report(self) -> dict[str, Any]:
        """What was done, and the figures of the held-out rows; the same on every rank."""
        kind = self._settings.kind
        return {
            "kind": kind,
            "judge": self._settings.judge,
            "trained_rows": len(self._train),
            "too_long": self._too_long,
            "steps": self._step,
            "held_out": measure(kind, self._held_out, self._scores(self._held_out)),
        }

    def write(self, out: Path, report: dict[str, Any]) -> None:
        """The model as transformers writes it; the tokenizer's files byte by byte, as saving one may change how it splits."""
        weights: dict[str, Tensor] = {}
        for (
            name,
            tensor,
        ) in self._engine.full_parameters():  # to the end on every rank, though only the first keeps them
            if self._rank == 0:
                weights[name.removeprefix("hf.")] = tensor.detach().to(device="cpu", copy=True)
        if self._rank == 0:
            _write(self._engine.module.hf, weights, self._base, out, report)

    def close(self) -> None:
        """Leave the process group."""
        self._engine.close()

    def _scores(self, examples: Sequence[Example]) -> list[float]:
        """Of every sequence, in the order of the examples."""
        width = len(examples[0].sequences)
        scores = torch.zeros(len(examples), width, dtype=torch.float64, device=self._engine.device)
        with named_failures("scoring the held-out rows"):
            for indices, packed in self._parts(examples):
                found = self._engine.forward_only(packed)
                if indices:
                    scores[indices] = found.reshape(-1, width).double()
            found_by_all: list[float] = self._engine.all_reduce(scores, "sum").flatten().tolist()
        return found_by_all

    def _parts(self, examples: Sequence[Example]) -> list[tuple[list[int], PackedExamples]]:
        """This rank's share, in as many micro-batches as every rank has: (which examples, packed); or no example, a stand-in."""
        refs = [SequenceRef(group=i, completion=0, tokens=example.tokens) for i, example in enumerate(examples)]
        made = []
        for part in divide(refs, self._settings.ranks, self._settings.micro_batch_tokens)[self._rank]:
            indices = [ref.group for ref in part]
            made.append(
                (indices, pack_examples([examples[i] for i in indices] or [self._stand_in], self._engine.device))
            )
        return made

    @property
    def _stand_in(self) -> Example:
        return (
            _DUMMY_SEQUENCE
            if self._settings.kind == "pairwise"
            else replace(_DUMMY_SEQUENCE, sequences=((0,),), lengths=(1,))
        )


def _loss(kind: Kind, score_S: Tensor, packed: PackedExamples) -> Tensor:
    return pairwise_loss(score_S) if kind == "pairwise" else pointwise_loss(score_S, packed.labels)


def _write(hf: Any, weights: dict[str, Tensor], base: Path, out: Path, report: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(out) as folder:
        hf.save_pretrained(folder, state_dict=weights)
        for path in base.iterdir():
            kept = path.is_file() and not (folder / path.name).exists()
            if kept and not any(path.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(path, folder / path.name)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
