"""A vLLM engine in a process of its own, for tests of weight transfers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.engine import VllmEngine
from r1ray.config.schema import Config
from r1ray.transport.plan import spec_of
from r1ray.types import Sampling
from tests.integration.models import VOCABULARY


class EngineHost:
    """A VllmEngine in a process of its own, driven by the test."""

    def __init__(self, config: Config, model_path: str, synced: bool = False) -> None:
        self._engine = VllmEngine(config, model_path, synced=synced)
        self._engine.set_version(0)

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[Any]:
        for i, tokens in enumerate(prompts):
            self._engine.submit(str(i), tokens, sampling, 1)
        return self._drain()

    def _drain(self) -> list[Any]:
        finished = {}
        while self._engine.unfinished:
            finished.update(self._engine.step())
        return [finished[i][0] for i in sorted(finished, key=int)]

    def receive(self, rendezvous: Any, specs: Any, version: int, prompts: list[list[int]], sampling: Sampling) -> Any:
        """Begin to generate, receive and apply in flight, finish generating."""
        for i, tokens in enumerate(prompts):
            self._engine.submit(str(i), tokens, sampling, 1)
        finished: dict[str, Any] = {}
        for _ in range(6):
            finished.update(self._engine.step())
        if rendezvous is not None:
            self._engine.enter_group(rendezvous, 1, "127.0.0.1")
        self._engine.begin_receive(specs, 1 << 16)
        steps = 0
        while (applied := self._engine.try_apply(version)) is None:
            # A few steps beside the transfer; then wait for it, so that it meets requests under way however slow it is.
            if steps < 6:
                finished.update(self._engine.step())
                steps += 1
        while self._engine.unfinished:
            finished.update(self._engine.step())
        return applied, [finished[i][0] for i in sorted(finished, key=int)]

    def keep_cache(self, keep: bool) -> None:
        """As `sync.kv_cache: keep` from now on, or recompute."""
        self._engine._keeps_cache = keep

    def receive_differences(self, differences: bool) -> None:
        """As `sync.encoding: delta` from now on, or full."""
        self._engine._delta = differences

    def corrupt_after_loading(self) -> None:
        """Make every weight update load something else than was received."""

        def spoil(worker: Any) -> None:
            engine = worker.weight_transfer_engine
            load = engine.model.load_weights
            engine.model.load_weights = lambda weights: load((n, w + 1 if "mlp" in n else w) for n, w in weights)

        self._engine._engine.collective_rpc(spoil)


def config_for(path: Path) -> Config:
    config = Config()
    config.model.path, config.model.dtype, config.model.max_length = str(path), "float32", 128
    config.rollout.num_gpus = 0.0
    config.rollout.engine.kv_cache_gib = 0.1
    config.rollout.engine.enforce_eager = True
    return config


def specs_of(weights: dict[str, torch.Tensor]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(s.name, s.dtype, s.shape) for s in (spec_of(n, t) for n, t in weights.items())]


def mismatch(
    trained: Path, prompts: list[list[int]], completions: list[Any], version: int, temperature: float
) -> float:
    """Largest |vLLM - transformers| log-probability over tokens of `version`, with the model in `trained`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    worst = 0.0
    for prompt, c in zip(prompts, completions, strict=True):
        ids = torch.tensor([prompt + c.token_ids.tolist()])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids).logits[0][:, :VOCABULARY] / temperature, -1)
        own = logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()
        for span in c.version_spans:
            if span.version == version:
                part = slice(span.start, span.end)
                worst = max(worst, float(np.abs(own[part] - c.behavior_logprobs[part]).max()))
    return worst
