"""Engines of tests as Ray actors: forks of a process that has imported vLLM, as the rollout workers of a run are."""

from __future__ import annotations

from typing import Any

import ray

from r1ray.preflight.fork_servers import environment_of, imports_of, python_of
from tests.integration.engine_host import EngineHost
from tests.integration.processes import loop_config, share_fork_servers


def engine_actor(cls: type = EngineHost, **options: Any) -> Any:
    """`cls`, to be started by `.remote(...)` in a process of its own; `options`: Ray's."""
    share_fork_servers()
    config = loop_config()
    python = python_of(imports_of("rollout", config))
    assert python is not None, "the shared fork server of rollout workers has died"
    environment = {**environment_of("rollout", config), "CUDA_VISIBLE_DEVICES": ""}
    forked = {"env_vars": environment, "py_executable": python}
    return ray.remote(cls).options(**{"num_cpus": 0.5, "runtime_env": forked, **options})
