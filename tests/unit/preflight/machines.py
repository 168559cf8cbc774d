"""Machines that runs are planned for."""

from __future__ import annotations

from r1ray.util.machine import GIB, Machine

LAPTOP = Machine(cores=2, memory_bytes=16 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
