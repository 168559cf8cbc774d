"""Training of a reward model on one device: rows in, a model folder and a report out."""

from __future__ import annotations

import json
import math
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from learner.engine import Engine
from learner.export import WEIGHTS
from learner.files import write_aside
from learner.group import init_process_group
from learner.preference.model import PackedExamples, load_base, pack_examples, pairwise_loss, pointwise_loss
from learner.preference.report import measure
from learner.preference.rows import Example, hold_out, read_examples
from learner.schedules import learning_rate
from r1ray.config.schema import LearnerConfig, ModelConfig, OptimizerConfig
from r1ray.data.tokenizer import load_tokenizer
from r1ray.errors import ConfigError, NumericError
from r1ray.rewards.conversation import Part
from r1ray.rewards.preference import REPORT, Kind

_COLLECTIVE_S = 600.0


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
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        rows = 2 if self.kind == "pairwise" else 1
        if self.micro_batch_tokens < rows * self.max_length:
            raise ConfigError(
                f"micro_batch_tokens = {self.micro_batch_tokens} holds no {rows} x max_length = {rows * self.max_length} tokens"
            )
        if min(self.epochs, self.batch_size, self.max_length) < 1 or not (0 < self.held_out < 1 and self.lr > 0):
            raise ConfigError("epochs, batch_size, max_length and lr must be positive, held_out between 0 and 1")


def train_reward_model(
    data: Path, *, base: Path, out: Path, settings: Settings, progress: Callable[[int, int, float], None]
) -> dict[str, Any]:
    """Train the model of the folder `base` on `data` and write it to `out` with its report, which is returned.

    `progress` gets (steps done, of how many, mean loss). Raises ConfigError for data or a model that cannot be used, and
    NumericError where a gradient is not finite; nothing is written then.
    """
    tokenizer = load_tokenizer(str(base))
    examples, too_long = read_examples(
        data, tokenizer, kind=settings.kind, judge=settings.judge, max_length=settings.max_length
    )
    train, held_out = hold_out(examples, settings.held_out, settings.seed)
    pad = getattr(tokenizer, "pad_token_id", None)
    model = ModelConfig(path=str(base), dtype=settings.dtype, max_length=settings.max_length)
    module = load_base(model, tokenizer.eos_token_id if pad is None else pad, settings.seed)
    device = init_process_group(rank=0, world_size=1, address="127.0.0.1", port=_free_port(), timeout_s=_COLLECTIVE_S)
    learner = LearnerConfig(zero_stage=0, optimizer=OptimizerConfig(lr=settings.lr))
    engine = Engine(module.to(device), model=model, learner=learner, device=device, world_size=1)
    try:
        steps = _train(engine, train, settings, learner.optimizer, progress)
        report = {
            "kind": settings.kind,
            "judge": settings.judge,
            "trained_rows": len(train),
            "too_long": too_long,
            "steps": steps,
            "held_out": measure(settings.kind, held_out, _scores(engine, held_out, settings)),
        }
        _write(engine.module.hf, base, out, report)
    finally:
        engine.close()
    return report


def _train(
    engine: Engine,
    examples: Sequence[Example],
    settings: Settings,
    optimizer: OptimizerConfig,
    progress: Callable[[int, int, float], None],
) -> int:
    per_epoch = math.ceil(len(examples) / settings.batch_size)
    steps = per_epoch * settings.epochs
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(examples))
        chosen = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        batch = [examples[i] for i in chosen]
        losses: list[float] = []

        def share(model: Any, packed: PackedExamples, rows: int = len(batch), losses: list[float] = losses) -> Tensor:
            loss = _loss(settings.kind, model(packed), packed) / rows
            losses.append(float(loss.detach()))
            return loss

        packed = [pack_examples(part, engine.device) for part in _parts(batch, settings.micro_batch_tokens)]
        report = engine.step(packed, share, lr=learning_rate(step, steps, optimizer))
        if not report.applied:
            raise NumericError(f"step {step} of {steps} has a gradient that is not finite: lower --lr, or use float32")
        progress(step + 1, steps, sum(losses))
    return steps


def _loss(kind: Kind, score_S: Tensor, packed: PackedExamples) -> Tensor:
    return pairwise_loss(score_S) if kind == "pairwise" else pointwise_loss(score_S, packed.labels)


def _parts(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """Whole examples in order, as many at once as `tokens` hold."""
    part: list[Example] = []
    for example in examples:
        if part and sum(e.tokens for e in part) + example.tokens > tokens:
            yield part
            part = []
        part.append(example)
    yield part


def _scores(engine: Engine, examples: Sequence[Example], settings: Settings) -> list[float]:
    scores: list[float] = []
    for part in _parts(examples, settings.micro_batch_tokens):
        scores += engine.forward_only(pack_examples(part, engine.device)).tolist()
    return scores


def _write(hf: Any, base: Path, out: Path, report: dict[str, Any]) -> None:
    """The model as transformers writes it; the tokenizer's files byte by byte, as saving one may change how it splits."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(out) as folder:
        hf.save_pretrained(folder)
        for path in base.iterdir():
            kept = path.is_file() and not (folder / path.name).exists()
            if kept and not any(path.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(path, folder / path.name)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
