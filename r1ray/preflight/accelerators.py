"""Data-sheet figures of GPUs, and what is assumed of a CPU core.

Sources: the vendor's data sheets of A100, H100 (SXM), H200 (SXM), L40S, and of the HGX boards with eight B200 or B300,
divided by eight. Dense figures: data sheets often print those with sparsity, which are twice as large.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1ray.config.sections.hardware import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One kind of GPU, or one core of a CPU. Producer: `ACCELERATORS`. Consumers: preflight, planning, recipe."""

    memory_gb: float  # 10^9 bytes
    tflops: float  # 10^12 dense bfloat16 operations a second; of a core: float32
    memory_gb_s: float  # 10^9 bytes a second from its memory
    link_gb_s: float  # 10^9 bytes a second to the other GPUs of its host, both directions together

    @property
    def memory_bytes(self) -> float:
        """Memory that a plan may fill.

        A device has up to 7% more (an H100 of "80 GB" has 85.5e9 bytes): room for CUDA's context, NCCL's buffers and
        fragmentation, which no plan counts.
        """
        return self.memory_gb * 1e9


ACCELERATORS: dict[Gpu, Accelerator] = {
    "a100-40": Accelerator(memory_gb=40, tflops=312, memory_gb_s=1555, link_gb_s=600),
    "a100-80": Accelerator(memory_gb=80, tflops=312, memory_gb_s=2039, link_gb_s=600),
    "h100-80": Accelerator(memory_gb=80, tflops=989, memory_gb_s=3350, link_gb_s=900),
    "h200-141": Accelerator(memory_gb=141, tflops=989, memory_gb_s=4800, link_gb_s=900),
    "b200-180": Accelerator(memory_gb=180, tflops=2250, memory_gb_s=8000, link_gb_s=1800),
    "b300-288": Accelerator(memory_gb=288, tflops=2250, memory_gb_s=8000, link_gb_s=1800),
    "l40s-48": Accelerator(memory_gb=48, tflops=362, memory_gb_s=864, link_gb_s=64),
    "cpu": Accelerator(memory_gb=0, tflops=0.05, memory_gb_s=10, link_gb_s=10),  # a core; ours, not a data sheet
}
"""`hardware.gpu` -> its figures. The memory of a CPU's core is that of its host, `hardware.host_gib`."""
