"""Generation engine: vLLM behind a small interface to submit a group, step, and change the weights between two steps.

The engine runs in this process (no engine-core child), so that a step and a weight change can never overlap; with
tensor parallelism vLLM's executor starts the worker processes and the same calls reach them all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.engine_arguments import engine_arguments
from actors.engine_places import ProcessPlace, check_spread
from actors.routing import capture_on_cpu, experts_of
from r1ray.config.rules import recorded_every
from r1ray.config.schema import Config
from r1ray.data.tokenizer import load_tokenizer, unused_ids
from r1ray.errors import EngineRefused, ServedWeightsDiffer, WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, WeightLayout
from r1ray.types import Completion, Sampling, VersionSpan

if TYPE_CHECKING:
    from vllm import SamplingParams


class GenerationEngine(Protocol):
    """What the rollout worker requires of an engine; tests use a scripted one."""

    def submit(self, request_id: str, token_ids: Sequence[int], sampling: Sampling, n: int) -> None:
        """Add a request for `n` completions of a prompt."""
        ...

    def step(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """Run one engine step; returns the requests that it finished, each with all its completions."""
        ...

    @property
    def unfinished(self) -> int:
        """Number of completions in the engine that have not ended."""
        ...

    def enter_group(self, rendezvous: Rendezvous, rank: int, host: str | None) -> None:
        """Take part in the weight-sync group of a new epoch from the next receive on."""
        ...

    def begin_receive(self, layout: WeightLayout, bucket_bytes: int) -> None:
        """Start to receive weights while generation continues; `try_apply` completes it."""
        ...

    def try_apply(self, version: int) -> Applied | None:
        """Apply the weights once all are received; None before that. Raises WeightSyncError."""
        ...

    def set_version(self, version: int) -> None:
        """Label the tokens sampled from now on with policy `version`."""
        ...


def stop_token_ids(model_path: str) -> list[int]:
    """Ids that end a completion besides the tokenizer's; some chat models list several in generation_config.json."""
    path = Path(model_path) / "generation_config.json"
    if not path.exists():
        return []
    ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") or []
    return [ids] if isinstance(ids, int) else list(ids)


def without_end_token(token_ids: Sequence[int], end_ids: Collection[int | None]) -> Sequence[int]:
    """The tokens of a completion without the one that ended it, if its id is among `end_ids`."""
    return token_ids[:-1] if len(token_ids) and token_ids[-1] in end_ids else token_ids


def engine_prompt(token_ids: Sequence[int], salt: str | None) -> dict[str, Any]:
    """A prompt in vLLM's form. Blocks of the prefix cache are shared by prompts with the same `salt` only."""
    prompt: dict[str, Any] = {"prompt_token_ids": list(token_ids)}
    return prompt if salt is None else {**prompt, "cache_salt": salt}


def engine_refused(error: Exception) -> EngineRefused:
    """vLLM's error as text: some of its exceptions cannot travel to the driver (pydantic's hold its arguments)."""
    lines = [line for line in str(error).splitlines() if "For further information visit" not in line]
    return EngineRefused("\n".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *lines[1:]]))


class VllmEngine:
    """GenerationEngine on vLLM. Not thread-safe: one thread owns it."""

    def __init__(self, config: Config, model_path: str, *, synced: bool = False) -> None:
        """Load the model; `synced`: see `engine_arguments`. Raises EngineRefused if vLLM fails."""
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        import actors.receiver  # noqa: F401  registers the transfer engine in this process

        arguments = engine_arguments(config, model_path, synced=synced)
        try:
            self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except Exception as e:
            raise engine_refused(e) from e
        self._config = config
        if recorded_every(config) is not None and config.rollout.num_gpus == 0:
            capture_on_cpu(self._engine)
        self._tokenizer = self._engine.get_tokenizer()
        if unused := unused_ids(load_tokenizer(model_path), self._engine.model_config.get_vocab_size()):
            self._engine.collective_rpc("mask_unused_ids", args=(unused,))
        self._stop_ids = stop_token_ids(model_path)
        self._end_ids = {self._tokenizer.eos_token_id, *self._stop_ids}
        self._digest = config.sync.digest
        self._delta = config.sync.encoding == "delta"
        self._interface = config.sync.interface
        self._processes = config.rollout.engine.tensor_parallel_size
        self._places = self._find_places(config.rollout.engine.hosts)
        self._keeps_cache = config.sync.kv_cache == "keep"
        self._version = -1
        self._drained: list[Any] = []  # outputs of batches that ended before a change of weights

    def _find_places(self, hosts: int) -> list[ProcessPlace] | None:
        """Places of all processes by rank if they are on several hosts; None if all are on this one."""
        if hosts == 1:
            return None
        places: list[ProcessPlace] = self._engine.collective_rpc("place")
        check_spread(places, hosts)
        return places

    # -- generation ---------------------------------------------------------------------------------------------

    def submit(self, request_id: str, token_ids: Sequence[int], sampling: Sampling, n: int) -> None:
        """See `GenerationEngine.submit`."""
        params = self.sampling_params(sampling, n)
        self._engine.add_request(request_id, engine_prompt(token_ids, self._cache_salt()), params)

    def sampling_params(self, sampling: Sampling, n: int) -> SamplingParams:
        """`sampling` as vLLM has it, for `n` completions of a prompt."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
            stop_token_ids=self._stop_ids,
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def step(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """See `GenerationEngine.step`."""
        outputs, self._drained = self._drained, []
        if self._engine.get_num_unfinished_requests():
            outputs += self._engine.step()
        finished = []
        for output in outputs:
            if output.finished:
                completions = sorted(output.outputs, key=lambda c: c.index)
                finished.append((output.request_id, tuple(self._completion(c) for c in completions)))
        return finished

    def _completion(self, output: Any) -> Completion:
        tokens = np.asarray(output.token_ids, dtype=np.int32)
        spans = tuple(VersionSpan(version=int(s.version), start=s.start, end=s.end) for s in output.weight_versions)
        return Completion(
            token_ids=tokens,
            behavior_logprobs=np.asarray(output.logprobs.logprobs, dtype=np.float32),
            text=self._tokenizer.decode(without_end_token(output.token_ids, self._end_ids), skip_special_tokens=False),
            finish_reason=output.finish_reason,
            version_spans=spans,
            experts=experts_of(output, len(tokens), self._config),
        )

    @property
    def unfinished(self) -> int:
        """See `GenerationEngine.unfinished`; a request whose end `step` has not returned yet counts as one."""
        return int(self._engine.get_num_unfinished_requests()) + len([o for o in self._drained if o.finished])

    # -- weights ------------------------------------------------------------------------------------------------

    def enter_group(self, rendezvous: Rendezvous, rank: int, host: str | None) -> None:
        """See `GenerationEngine.enter_group`."""
        hosts = [host] * self._processes if self._places is None else [place.address for place in self._places]
        info = {"rendezvous": asdict(rendezvous), "rank_offset": rank, "interface": self._interface, "hosts": hosts}
        self._engine.collective_rpc("init_weight_transfer_engine", args=(info,))

    def begin_receive(self, layout: WeightLayout, bucket_bytes: int) -> None:
        """See `GenerationEngine.begin_receive`."""
        self._engine.collective_rpc("start_weight_update")
        info = {
            "layout": layout,
            "bucket_bytes": bucket_bytes,
            "digest": self._digest != "none",
            "delta": self._delta,
        }
        self._engine.collective_rpc("update_weights", args=(info,))

    def try_apply(self, version: int) -> Applied | None:
        """See `GenerationEngine.try_apply`. Raises ServedWeightsDiffer if reading back finds other values."""
        try:
            received = self._engine.collective_rpc("weights_received")
        except BaseException as e:
            self._engine.collective_rpc("weights_release")
            raise WeightSyncError(
                f"receiving policy {version} failed, the engine continues with policy {self._version}: {e}"
            ) from e
        if any(r is None for r in received):
            return None
        if len({r.digest for r in received}) > 1:
            self._engine.collective_rpc("weights_release")
            raise WeightSyncError(f"the processes of this worker received different bytes for policy {version}")
        began = time.monotonic()
        self._finish_batches()
        self._engine.collective_rpc("finish_weight_update")
        read_back = time.monotonic()
        if self._digest == "full":
            differing = {n for names in self._engine.collective_rpc("weights_read_back") for n in names}
            if differing:
                raise ServedWeightsDiffer(
                    f"after loading policy {version} other values are served in {sorted(differing)}"
                )
        self._engine.collective_rpc("weights_release")
        checked = time.monotonic()
        recomputed = 0
        if not self._keeps_cache:
            # Running sequences keep their tokens and recompute their keys and values under the new policy.
            recomputed = self._tokens_under_way()
            self._engine.reset_prefix_cache(reset_running_requests=True)
        self.set_version(version)
        return Applied(
            version=version,
            digest=received[0].digest,
            apply_s=time.monotonic() - began,
            digest_s=checked - read_back,
            recomputed_tokens=recomputed,
        )

    @property
    def _core(self) -> Any:
        return self._engine.engine_core.engine_core  # in this process, see the module's docstring

    def _finish_batches(self) -> None:
        """Take the outputs of batches that are under way, under the version of the weights that computed them.

        With asynchronous scheduling (on CUDA) vLLM keeps up to two. It labels tokens when it takes an output, not when
        it computes it: without this, tokens of the old weights would get the new version, or be thrown away and sampled
        again.
        """
        from vllm.v1.core.sched.interface import PauseState

        if not self._core.batch_queue:
            return
        self._core.scheduler.set_pause_state(PauseState.PAUSED_ALL)
        try:
            while self._core.batch_queue:
                self._drained += self._engine.step()
        finally:
            self._core.scheduler.set_pause_state(PauseState.UNPAUSED)

    def _tokens_under_way(self) -> int:
        """Tokens with keys and values in the cache of sequences that run."""
        return sum(request.num_computed_tokens for request in self._core.scheduler.running)

    def _cache_salt(self) -> str | None:
        """With a cache that outlives a sync, prompts share blocks only with prompts of the same policy."""
        return f"policy {self._version}" if self._keeps_cache else None

    def set_version(self, version: int) -> None:
        """See `GenerationEngine.set_version`."""
        self._version = version
        self._engine.set_weight_version(str(version))
