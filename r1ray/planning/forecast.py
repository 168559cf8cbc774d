"""All parts of a plan of a run, as one record and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1ray.config.schema import Config
from r1ray.models.folder import ModelShape
from r1ray.planning.balance import Split, best_split, sides
from r1ray.planning.rates import Rates
from r1ray.planning.scenario import Outcome, Scenario
from r1ray.planning.simulation import simulate
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.hardware import host_bytes, place
from r1ray.preflight.memory import learner_bytes
from r1ray.preflight.placement import Plan
from r1ray.preflight.volumes import checkpoint_bytes, model_bytes
from r1ray.util.formatting import duration, number, share
from r1ray.util.machine import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Memory of a learner rank at one ZeRO stage, in bytes by part. Producer: `forecast`."""

    zero_stage: int
    device: dict[str, float]
    host: dict[str, float]
    fits: bool | None  # its GPU; None: no GPU is declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A plan. Producer: `forecast`. Consumer: `r1ray plan`."""

    model: str
    parameters: float
    active_parameters: float
    hardware: str
    problems: tuple[str, ...]
    stages: tuple[StageMemory, ...]
    rollout: dict[str, dict[str, float]]  # "device" and "host" -> part -> bytes
    fullest_host: float | None  # bytes; None: no placement
    engine_tokens_s: float  # of one full engine
    engine_sequences: int
    sides: Split
    best: Split | None
    seconds: dict[str, float]  # load, sync, checkpoint, training step
    volumes: dict[str, float]  # bytes of the model and of a checkpoint
    simulated: Outcome
    scenario: Scenario


def forecast(plan: Plan, rates: Rates, scenario: Scenario) -> Forecast:
    """Make the forecast of a planned run; the simulation is that of `scenario`."""
    config, shape = rates.config, rates.shape
    rollout = plan.role("rollout worker")
    context = scenario.prompt_tokens + scenario.mean_tokens / 2
    samples = config.learner.groups_per_step * config.rollout.group_size
    try:
        nodes = place(config, plan.roles)
        fullest: float | None = max(host_bytes(node, plan.roles) for node in nodes)
    except ValueError:
        fullest = None
    hardware = config.hardware
    return Forecast(
        model=config.model.path,
        parameters=float(shape.parameters),
        active_parameters=shape.active,
        hardware=f"{hardware.nodes} x {hardware.per_node} {hardware.gpu or 'cpu'}",
        problems=tuple(p.line(None) for p in plan.problems),
        stages=tuple(_stages(config, shape)),
        rollout={"device": dict(rollout.device), "host": dict(rollout.host)},
        fullest_host=fullest,
        engine_tokens_s=rates.generation_tokens_s(context),
        engine_sequences=rates.slots(context),
        sides=sides(rates, scenario),
        best=best_split(rates, scenario),
        seconds={
            "start": rates.restart_s(),
            "training step": rates.training_s(samples * (scenario.mean_tokens + scenario.prompt_tokens), context),
            "weight sync": rates.sync_s(),
            "checkpoint": rates.checkpoint_s(),
        },
        volumes={"model": model_bytes(config, shape), "checkpoint": checkpoint_bytes(config, shape)},
        simulated=simulate(rates, scenario),
        scenario=replace(scenario, lengths=()),
    )


def _stages(config: Config, shape: ModelShape) -> list[StageMemory]:
    found, gpu = [], config.hardware.gpu
    for stage in range(1 if config.model.dtype == "bfloat16" else 0, 4):
        learner = replace(
            config.learner, zero_stage=stage, offload_parameters=config.learner.offload_parameters and stage == 3
        )
        device, host = learner_bytes(replace(config, learner=learner), shape)
        room = ACCELERATORS[gpu].memory_bytes if gpu is not None and learner.num_gpus else None
        fits = None if room is None else sum(device.values()) <= room * min(1.0, learner.num_gpus)
        found.append(StageMemory(zero_stage=stage, device=device, host=host, fits=fits))
    return found


def to_text(f: Forecast, config: Config) -> str:
    """The forecast as tables."""
    lines = [f"{f.model}: {_billions(f.parameters)} parameters" + _active(f) + f", on {f.hardware}"]
    lines += [f"Does not fit: {problem}" for problem in f.problems] or ["Fits."]
    lines.append("Memory of a learner rank (GiB; * as configured)")
    device = "gpu" if config.learner.num_gpus else "host"
    for s in f.stages:
        mark = "*" if s.zero_stage == config.learner.zero_stage else " "
        verdict = {True: "", False: " does not fit", None: ""}[s.fits]
        lines.append(f" {mark}ZeRO {s.zero_stage}  {device} {_parts(s.device)}{verdict}")
        if s.host:
            lines.append(f"          host {_parts(s.host)}")
    lines.append("Memory of a rollout worker (GiB)")
    lines += [f"          {where.replace('device', 'gpu')} {_parts(p)}" for where, p in f.rollout.items() if p]
    if f.fullest_host is not None:
        lines.append(f"Fullest host: {f.fullest_host / GIB:,.0f} GiB of {config.hardware.host_gib:,.0f} GiB")
    lines.append(f"Rates, completions of {number(f.scenario.mean_tokens)} tokens on average")
    lines.append(f"  an engine of {f.engine_sequences} sequences: {number(f.engine_tokens_s)} tokens/s")
    lines += [f"  {name}: {duration(seconds)}" for name, seconds in f.seconds.items()]
    lines.append("Balance (completion tokens/s of each side, as if it never waited)")
    lines.append(_split("as configured", f.sides))
    if f.best is not None:
        lines.append(_split("best of these GPUs", f.best))
    o = f.simulated
    lines.append(f"Simulated, {f.scenario.steps} steps")
    lines.append(f"  a step takes {duration(o.step_s)}, {number(o.tokens_s)} completion tokens/s")
    lines.append(f"  learner waits {share(o.learner_idle)}, rollout workers {share(o.rollout_idle)} of the time")
    lines.append(f"  staleness {o.staleness:.2f} steps on average, {o.stale_groups} groups too old and sampled again")
    if f.scenario.mtbf_hours or f.scenario.spot_hours:
        lines.append(f"  lost: {o.lost_engines} rollout workers, {o.lost_learners} times the learner")
    return "\n".join(lines)


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:,.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:,.2f} M"


def _active(f: Forecast) -> str:
    return f" ({_billions(f.active_parameters)} of them per token)" if f.active_parameters < f.parameters else ""


def _parts(parts: dict[str, float]) -> str:
    named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in _largest_first(parts))
    return f"{sum(parts.values()) / GIB:.1f}: {named}"


def _largest_first(parts: dict[str, float]) -> Sequence[tuple[str, float]]:
    return sorted(parts.items(), key=lambda item: -item[1])


def _split(name: str, split: Split) -> str:
    return (
        f"  {name}: {split.ranks} learner ranks train {number(round(split.trained_s))}, "
        f"{split.workers} rollout workers generate {number(round(split.generated_s))}"
    )
