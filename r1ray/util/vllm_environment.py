"""Environment variables that vLLM, torch, cuBLAS and NCCL read when they are imported or first used."""

from __future__ import annotations

from collections.abc import Mapping

ON_THIS_HOST: Mapping[str, str] = {"GLOO_SOCKET_IFNAME": "lo"}
"""The groups of an engine on one host never leave it. Without this gloo listens at the address of the host's name."""

CPU_ENVIRONMENT: Mapping[str, str] = {
    **ON_THIS_HOST,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # log-probabilities compile a kernel even in eager mode: 5-7 s
    "VLLM_NO_USAGE_STATS": "1",
}
DETERMINISTIC_CUDA: Mapping[str, str] = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Of every process that computes on a GPU in a deterministic run: otherwise cuBLAS picks other kernels when its
workspace is taken, and torch refuses matrix products under `use_deterministic_algorithms`.
"""

GPU_ENVIRONMENT: Mapping[str, str] = {
    **ON_THIS_HOST,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}

ONE_HOST_NCCL: Mapping[str, str] = {"NCCL_SOCKET_IFNAME": "=lo"}
"""Of every process with a GPU if all processes are on one host: otherwise NCCL avoids the loopback interface."""
