"""The command of vLLM's OpenAI-compatible server for a model of r1ray."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ray.models.folder import read_shape
from r1ray.serving.engine import CACHE_SLACK, stored_dtype
from r1ray.serving.server import Address
from r1ray.util.machine import Machine
from r1ray.util.vllm_environment import CPU_ENVIRONMENT, GPU_ENVIRONMENT, ONE_HOST_NCCL

MEMORY_SHARE = 0.25
"""Largest share of the machine's memory that the key-value cache may use on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model and the settings that it is served with. Producer: `r1ray serve`."""

    model: Path
    name: str  # by which clients request the model
    address: Address
    chat_template: Path  # a Jinja file
    thinking_opened: bool  # the template ends inside the thinking
    max_length: int  # tokens, prompt and response together
    parallel: int  # sequences at once
    extra: Sequence[str] = ()  # more options of vLLM


def server_command(served: Served, machine: Machine) -> tuple[list[str], dict[str, str]]:
    """The command line and its additional environment variables. Raises ConfigError if the model cannot be read."""
    shape = read_shape(served.model)
    length = min(served.max_length, shape.context)
    dtype = stored_dtype(served.model, machine)
    options = {
        "host": served.address.host,
        "port": str(served.address.port),
        "served-model-name": served.name,
        "chat-template": str(served.chat_template),
        "chat-template-content-format": "string",
        "reasoning-parser-plugin": "r1ray.serving.reasoning_parser",
        "reasoning-parser": "r1ray_opened" if served.thinking_opened else "r1ray",
        "dtype": dtype,
        "max-model-len": str(length),
        "max-num-seqs": str(served.parallel),
        "uvicorn-log-level": "warning",
    }
    flags = ["--disable-log-stats"]
    environment = {**GPU_ENVIRONMENT, **ONE_HOST_NCCL}
    if not machine.gpus:
        sequence = 2 * shape.layers * shape.key_value * (4 if dtype == "float32" else 2) * length
        most = max(sequence, int(MEMORY_SHARE * machine.memory_bytes))
        options["kv-cache-memory-bytes"] = str(min(served.parallel * sequence, most) + CACHE_SLACK)
        flags.append("--enforce-eager")
        # A rollout worker has one core; this server has the machine to itself.
        environment = {**CPU_ENVIRONMENT, "OMP_NUM_THREADS": str(machine.cores)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    # `vllm serve` needs the version of a package named vllm, which a CPU installation lacks.
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(served.model)]
    return [*command, *words, *flags, *served.extra], environment
