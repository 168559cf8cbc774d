"""A vLLM engine in a process of its own, for tests of weight transfers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.engine import VllmEngine
from learner.publish import WeightPublisher
from r1ray.config.schema import Config, SyncConfig
from r1ray.transport.abortable import in_thread
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import one_sender, spec_of, stream_plan
from r1ray.transport.transfer import Sent, WeightLayout, together
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

    def computed_for(self, prompt: list[int], completions: int) -> int:
        """Tokens that the engine computes for so many completions of one token each."""
        scheduler = self._engine._engine.engine_core.engine_core.scheduler
        schedule, computed = scheduler.schedule, 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal computed
            made = schedule(*args, **kwargs)
            computed += made.total_num_scheduled_tokens
            return made

        scheduler.schedule = counted
        self._engine.submit("0", prompt, Sampling(temperature=1.0, max_new_tokens=1), completions)
        self._drain()
        scheduler.schedule = schedule
        return computed

    def _drain(self) -> list[Any]:
        finished = {}
        while self._engine.unfinished:
            finished.update(self._engine.step())
        return [finished[i][0] for i in sorted(finished, key=int)]

    def receive(self, rendezvous: Any, layout: Any, version: int, prompts: list[list[int]], sampling: Sampling) -> Any:
        """Begin to generate, receive and apply in flight, finish generating."""
        for i, tokens in enumerate(prompts):
            self._engine.submit(str(i), tokens, sampling, 1)
        finished: dict[str, Any] = {}
        for _ in range(6):
            finished.update(self._engine.step())
        if rendezvous is not None:
            self._engine.enter_group(rendezvous, 1, "127.0.0.1")
        self._engine.begin_receive(layout, 1 << 16)
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


def layout_of(weights: dict[str, torch.Tensor]) -> WeightLayout:
    return one_sender([spec_of(name, tensor) for name, tensor in weights.items()])


class Senders:
    """`count` learner ranks that send these weights: one sends all, several an equal part of each."""

    def __init__(self, weights: dict[str, torch.Tensor], count: int = 1, **changes: Any) -> None:
        sync = replace(SyncConfig(bucket_bytes=1 << 16, bucket_deadline_s=30.0), **changes)
        specs = [spec_of(name, tensor) for name, tensor in weights.items()]
        layout = one_sender(specs)
        shares = [[part(share, rank, count) for share in layout.shares[0]] for rank in range(count)]
        self.layout = replace(layout, shares=[[share for share in own if share[2]] for own in shares])
        self._publishers = [
            WeightPublisher(
                sync,
                transport="gloo",
                plan=stream_plan(specs, own, sync.bucket_bytes),
                rank=rank,
                senders=count,
                host="127.0.0.1",
            )
            for rank, own in enumerate(self.layout.shares)
        ]

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        self._group: Rendezvous | None = self._publishers[0].open_epoch(epoch, receivers)
        return self._group

    def send(self, weights: dict[str, torch.Tensor]) -> Sent:
        """What all have sent."""
        group, self._group = self._group, None
        flat = [(name, tensor.detach().reshape(-1)) for name, tensor in weights.items()]
        calls = [
            in_thread(partial(publisher.send, [(flat[i][0], s, flat[i][1][s : s + n]) for i, s, n in own], group))
            for publisher, own in zip(self._publishers, self.layout.shares, strict=True)
        ]
        return together([call.result(60.0) for call in calls])


def part(share: tuple[int, int, int], rank: int, ranks: int) -> tuple[int, int, int]:
    """Of a whole weight the part that ZeRO 3 gives a rank."""
    index, _, values = share
    size = -(-values // ranks)
    start = min(size * rank, values)
    return index, start, min(size, values - start)


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
