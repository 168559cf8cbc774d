"""Environment variables that vLLM, torch and cuBLAS read when they are imported or first used."""

from __future__ import annotations

from collections.abc import Mapping

CPU_ENVIRONMENT: Mapping[str, str] = {
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
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
