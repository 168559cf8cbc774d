"""Profile of the training steps of a rank (`r1ray train --profile`): seconds by phase, and a trace for Perfetto.

with self._phases("forward"): ...        costs nothing unless a profile is under way
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from r1ray.control.handles import RankProfile
from r1ray.run.profile import PHASES

_NOTHING = nullcontext()


class Phases:
    """Times the phases of steps while a profile is under way. A phase contains no other one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] | None = None
        self._device = torch.device("cpu")

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """The context of one phase, one of PHASES."""
        return _NOTHING if self._seconds is None else self._timed(self._seconds, name)

    @contextmanager
    def _timed(self, seconds: dict[str, float], name: str) -> Iterator[None]:
        with torch.profiler.record_function(name):
            began = time.perf_counter()
            yield
            if self._device.type == "cuda":  # kernels run on after their launch
                torch.cuda.synchronize(self._device)
            seconds[name] += time.perf_counter() - began

    def start(self, device: torch.device) -> None:
        """Begin to count, from zero."""
        self._device, self._seconds = device, dict.fromkeys(PHASES, 0.0)

    def stop(self) -> dict[str, float]:
        """Seconds of each phase since `start`; count no more."""
        seconds, self._seconds = self._seconds, None
        return seconds or {}


class Profiler:
    """torch's profiler around whole steps of one rank, and the times of their phases."""

    def __init__(self, phases: Phases, device: torch.device) -> None:
        """Begin to record."""
        kinds = torch.profiler.ProfilerActivity
        activities = [kinds.CPU, kinds.CUDA] if device.type == "cuda" else [kinds.CPU]
        self._phases = phases
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.start()
        phases.start(device)

    def stop(self, trace: Path) -> RankProfile:
        """Record no more, and write the trace. A trace that cannot be written is a `problem`, not an error."""
        seconds, profile = self._phases.stop(), self._profile
        profile.stop()
        draft = trace.with_name(f".{trace.name}.tmp.json")
        try:
            trace.parent.mkdir(exist_ok=True)
            profile.export_chrome_trace(str(draft))
            os.replace(draft, trace)
        except (OSError, RuntimeError) as e:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return {"seconds": seconds, "problem": f"{trace} was not written: {e}"}
        return {"seconds": seconds, "problem": None}
