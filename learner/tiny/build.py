"""Build the embedded base model.

    corpus --> tokenizer --> pretraining --> check of the skill --> folder in the Hugging Face format

The folder is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file

from learner import attention
from learner.files import scratch_beside
from learner.model import PolicyModel
from learner.tiny.check import skill
from learner.tiny.flavors import FLAVORS, Flavor, FlavorName
from learner.tiny.pretrain import Progress, Schedule, pretrain
from learner.tiny.recipe import RECORD, SHAPES, Size, is_current, recipe_hash
from learner.tiny.tokenizer import END_ID, PAD_ID, encode, write_tokenizer
from r1ray.errors import ConfigError, R1RayError

__all__ = ["BuildReport", "WeakBaseModel", "build_tiny_model", "is_current", "write_untrained"]

CONTEXT = 512
"""Longest sequence, in tokens; pretraining sees up to 128."""

LEAST_SKILL = 0.6
"""Below it reinforcement learning does not learn: a base model of 0.25 had an accuracy of 0.24 after 60 steps."""


class WeakBaseModel(R1RayError):
    """A base model of full size fails the task even if it is made to work step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """Result of a build; stored as build.json with the hash of the recipe."""

    seed: int
    size: Size
    flavor: FlavorName
    parameters: int
    tokens: int  # read in pretraining, prompts included
    loss: float  # of the last step, nats per response token
    skill: float  # see `learner.tiny.check.skill`
    seconds: float


def build_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    size: Size = "base",
    flavor: FlavorName = "plain",
    threads: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Pretrain the embedded model and write it to `path`, replacing an earlier build.

    `threads` of computation, 1 or 2; None: two while other programs leave two cores idle, else one. Raises ConfigError
    if `path` is not an earlier build, and WeakBaseModel if a base model of full size has not learned its arithmetic.
    """
    if path.exists() and not (path / RECORD).exists():
        raise ConfigError(f"{path} exists and was not made by `r1ray tiny`: move it away, or give another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _threads(threads) as adapt, scratch_beside(path) as scratch:
        aside = scratch / "new"

        def stepped(done: int, total: int, loss: float) -> None:
            adapt()
            if progress is not None:
                progress(done, total, loss)

        report = write_model(aside, seed=seed, size=size, flavor=flavor, progress=stepped)
        if size == "base" and report.skill < LEAST_SKILL:
            raise WeakBaseModel(
                f"the embedded model with seed {seed} is right in {report.skill:.0%} of the problems where it works "
                "step "
                f"by step, and reinforcement learning takes off from {LEAST_SKILL:.0%} only: build it with another seed"
            )
        if path.exists():
            path.rename(scratch / "old")
        aside.rename(path)
    return report


def write_model(
    folder: Path,
    *,
    seed: int,
    size: Size,
    flavor: FlavorName = "plain",
    schedule: Schedule | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build into the new `folder`, whatever skill results; a `schedule` shorter than the default gives little skill."""
    started = time.monotonic()
    kind = FLAVORS[flavor]
    schedule = schedule or Schedule(steps=kind.steps)
    hf, tokenizer = _begin(folder, size, seed, kind)
    corpus = encode(tokenizer, kind.documents(seed, schedule.steps * schedule.per_step))
    model = PolicyModel(hf).train()
    loss = pretrain(model, corpus, schedule, progress or (lambda done, total, loss: None))
    _save_weights(hf, folder)
    report = BuildReport(
        seed=seed,
        size=size,
        flavor=flavor,
        parameters=hf.num_parameters(),
        tokens=sum(len(d.prompt) + len(d.response) for d in corpus),
        loss=loss,
        skill=skill(model, tokenizer, flavor),
        seconds=time.monotonic() - started,
    )
    record = {"recipe": recipe_hash(), **asdict(report)}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report


def write_untrained(folder: Path) -> None:
    """Write the embedded base model as it is before its pretraining into the new `folder`.

    Its tokenizer and its sizes are those of the built model, in 3 s of processor time, imports included.
    """
    hf, _ = _begin(folder, "base", 0, FLAVORS["plain"])
    _save_weights(hf, folder)


def _begin(folder: Path, size: Size, seed: int, kind: Flavor) -> tuple[Any, Any]:
    """Write everything but the weights into the new `folder`; returns the model and the tokenizer."""
    folder.mkdir()
    hf = _new_model(size, seed, kind.vocabulary)
    hf.config.save_pretrained(folder)
    hf.generation_config.save_pretrained(folder)
    return hf, write_tokenizer(folder, kind)


def _save_weights(hf: Any, folder: Path) -> None:
    save_file(dict(hf.named_parameters()), folder / "model.safetensors", metadata={"format": "pt"})


def _new_model(size: Size, seed: int, vocabulary: int) -> Any:
    """A newly initialised Qwen2 model. Does not change torch's global random state."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = SHAPES[size]
    config = Qwen2Config(
        architectures=["Qwen2ForCausalLM"],
        dtype="float32",
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        attn_implementation=attention.choose("packed", cuda=False),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


LOOK_S = 1.0
"""Seconds between two looks at the load of the machine."""


class IdleCores:
    """How many threads compute fastest, from what other programs leave of the machine.

    Two threads are 1.7 times as fast as one on idle cores, and several times slower if they wait for busy cores.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._begin()

    def _begin(self) -> None:
        self._since, self._own_s = time.monotonic(), self._used()
        psutil.cpu_percent()  # counts from here

    def _used(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def threads(self) -> int | None:
        """The best number since the last answer; None: too soon to say."""
        seconds = time.monotonic() - self._since
        if seconds < LOOK_S:
            return None
        cores, own = len(os.sched_getaffinity(0)), (self._used() - self._own_s) / seconds
        others = cores * psutil.cpu_percent() / 100 - own
        self._begin()
        return 2 if cores - others > 1.7 else 1


@contextmanager
def _threads(fixed: int | None) -> Iterator[Callable[[], None]]:
    """Let torch compute with `fixed` threads in the block,
    or with as many as are best whenever the result is called.
    """
    before, idle = torch.get_num_threads(), IdleCores()
    torch.set_num_threads(fixed or 1)

    def adapt() -> None:
        if fixed is None and (best := idle.threads()) is not None:
            torch.set_num_threads(best)

    try:
        yield adapt
    finally:
        torch.set_num_threads(before)
