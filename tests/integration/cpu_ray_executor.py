"""vLLM's Ray executor on CPUs, where vLLM 0.32 has none: its platform of CPUs names no resource of Ray, and its groups
share memory between all processes that have one TCP port in common, whether or not they are on one host.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import ray
import vllm.v1.executor.ray_executor_v2 as vllm_ray
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.platforms import current_platform

current_platform.ray_device_key = f"node:{ray.util.get_node_ip_address()}"  # every node has one of it
CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False


class CpuProcess(vllm_ray.RayWorkerProc):
    """A process of the engine, which has no GPU."""

    def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
        return ray.get_runtime_context().get_node_id(), []

    def initialize_worker(self, *args: Any, **options: Any) -> None:
        super().initialize_worker(*args, **{**options, "assigned_physical_gpu_ids": None})


class CpuRayExecutor(vllm_ray.RayExecutorV2):
    """RayExecutorV2 with processes on CPUs."""

    def _init_executor(self) -> None:
        with patch.object(vllm_ray, "RayWorkerProc", CpuProcess):
            super()._init_executor()
