"""Completion tokens per second of one engine: driven by the rollout worker, and called directly.

    python -m benchmarks.rollout [--groups 192] [--write]        needs models/tiny (`make run` builds it)

    direct   all requests at once into vLLM's engine, which schedules them; its outputs are not looked at
    worker   the same requests as leases: `RolloutWorker` keeps `rollout.groups_in_engine` groups in the engine, turns
             outputs into completions with text, policy versions and log-probabilities, packs and delivers each group

Both use the engine, the prompts and the sampling parameters of conf/tiny.yaml in this process, on one thread. No
weights change meanwhile. The figure is worker / direct.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from actors.engine import VllmEngine, engine_prompt
from actors.rollout import RolloutWorker
from benchmarks import measure
from r1ray.codec import unpack_rollout
from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.data.source import PromptSource
from r1ray.data.tokenizer import load_tokenizer
from r1ray.ledger.records import Lease
from r1ray.transport.transfer import Applied, WeightLayout
from r1ray.types import Sampling
from r1ray.util.vllm_environment import CPU_ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
MODEL = "models/tiny"
DEADLINE_S = 300.0
"""Of one measurement."""


class Engine(VllmEngine):
    """vLLM with the weights that it loaded: a sync ends at once. `direct` is the loop of vLLM's own `LLM.generate`."""

    def begin_receive(self, layout: WeightLayout, bucket_bytes: int) -> None:
        """Nothing arrives."""

    def try_apply(self, version: int) -> Applied | None:
        """The weights are there."""
        self.set_version(version)
        return Applied(version=version, digest="", apply_s=0.0, digest_s=0.0)

    def direct(self, requests: list[list[int]], sampling: Sampling, n: int) -> float:
        """Completion tokens per second of all requests, given to vLLM together."""
        params = self.sampling_params(sampling, n)
        began, tokens = time.perf_counter(), 0
        for i, token_ids in enumerate(requests):
            self._engine.add_request(f"direct-{i}", engine_prompt(token_ids, None), params)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                tokens += sum(len(c.token_ids) for c in output.outputs)
        return tokens / (time.perf_counter() - began)


class Leases:
    """`actors.rollout.Services`: leases prompts 0 to `groups` - 1, and keeps what is delivered."""

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._leased = 0
        self._packed: list[bytes] = []
        self.done = threading.Event()

    def lease(self, worker_id: str, version: int, groups: int, held: list[str]) -> list[Lease]:
        """See `Services.lease`."""
        if self._leased == self._groups:
            self.done.wait(DEADLINE_S)
            return []
        first, self._leased = self._leased, min(self._groups, self._leased + groups)
        return [Lease(group_id=f"{i}-1", index=i, attempt=1, deadline=0.0) for i in range(first, self._leased)]

    def serving(self, worker_id: str, version: int) -> None:
        """See `Services.serving`."""

    def deliver(self, groups: list[bytes]) -> None:
        """See `Services.deliver`."""
        self._packed += groups
        if len(self._packed) == self._groups:
            self.done.set()

    @property
    def tokens(self) -> int:
        """Of all completions that were delivered."""
        return sum(len(c.token_ids) for group in self._packed for c in unpack_rollout(group).completions)

    def fail(self, group_id: str, reason: str) -> None:
        """See `Services.fail`: no prompt of the benchmark can fail."""
        raise AssertionError(f"{group_id}: {reason}")


def through_worker(config: Config, engine: Engine, prompts: PromptSource, groups: int) -> float:
    """Completion tokens per second from the first lease to the last delivery."""
    leases = Leases(groups)
    worker = RolloutWorker(config=config, worker_id="w", engine=engine, prompts=prompts, services=leases)
    worker.start()
    began = time.perf_counter()
    worker.receive_weights(
        version=0, group=None, layout=WeightLayout(weights=[], shares=[]), bucket_bytes=1, deadline_s=DEADLINE_S
    )
    if not leases.done.wait(DEADLINE_S):
        raise TimeoutError(f"{leases.tokens} tokens were delivered in {DEADLINE_S:.0f} s: {worker.stats()}")
    seconds = time.perf_counter() - began
    worker.stop()
    return leases.tokens / seconds


def main() -> None:
    """Measure, print the table, and store the result with --write."""
    parser = measure.parser(__doc__, repeats=7)
    parser.add_argument("--groups", type=int, default=192, help="groups of one measurement")
    arguments = parser.parse_args()
    if not (ROOT / MODEL / "config.json").exists():
        parser.error(f"{MODEL} is missing; build it with: r1ray tiny {MODEL}")
    os.environ.update(CPU_ENVIRONMENT)
    session = measure.start("rollout", arguments)
    config = load_config([str(ROOT / "conf/tiny.yaml")], [f"model.path={ROOT / MODEL}"]).config
    engine = Engine(config, str(ROOT / MODEL))
    prompts = PromptSource(config.data.train, config.data, load_tokenizer(str(ROOT / MODEL)), config.run.seed)
    requests = [prompts.task_at(i).token_ids.tolist() for i in range(arguments.groups)]
    r = config.rollout
    sampling = Sampling(temperature=r.temperature, top_p=r.top_p, max_new_tokens=r.max_new_tokens)
    rates = measure.interleaved(
        {
            "direct": lambda: engine.direct(requests, sampling, r.group_size),
            "worker": lambda: through_worker(config, engine, prompts, arguments.groups),
        },
        session.repeats,
    )
    ratio = measure.ratio(rates["worker"], rates["direct"])
    rows: list[tuple[str, Any]] = [(f"{k}, completion tokens/s", measure.summarise(v)) for k, v in rates.items()]
    print(measure.table(["", "median and range"], [*rows, ("worker / direct", ratio)]))
    result = {"what": "completion tokens per second of one engine", "groups": arguments.groups}
    result |= {name: measure.summarise(v).to_json() for name, v in rates.items()}
    session.finish(result, {"worker / direct": ratio})


if __name__ == "__main__":
    main()
