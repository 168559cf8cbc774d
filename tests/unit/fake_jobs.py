"""A Jobs API that runs nothing: each job prints what the test wants and ends as it wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

BEFORE = "2026-01-01 00:00:00,000\tINFO job_manager.py:581 -- Runtime env is setting up.\n"


@dataclass
class Details:
    """State of a job."""

    status: str = "SUCCEEDED"
    message: str | None = None
    driver_exit_code: int | None = 0


@dataclass
class FakeJobs:
    """`chunks`: what the next job prints, as it comes over the wire. `holds`: it does not end until it is stopped.
    `silent`: its output never ends, as over a connection that broke unseen."""

    chunks: list[str] = field(default_factory=list)
    outcome: Details = field(default_factory=Details)
    starts: bool = True
    holds: bool = False
    silent: bool = False
    breaks: Exception | None = None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        self.submitted.append({"entrypoint": entrypoint, **options})
        return str(options.get("submission_id", "job-1"))

    def get_job_info(self, job_id: str) -> Details:
        return Details("STOPPED", None, None) if job_id in self.stopped else self.outcome

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    def delete_job(self, job_id: str) -> bool:
        self.deleted.append(job_id)
        return True

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield BEFORE
        if self.starts:
            yield f"Running entrypoint for job {job_id}: python -m r1ray\n"
        for chunk in self.chunks:
            yield chunk
        if self.breaks is not None:
            raise self.breaks
        while self.silent or (self.holds and job_id not in self.stopped):
            await asyncio.sleep(0.01)
