"""How many of a cluster's GPUs should train, and how many generate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from r1ray.planning.rates import Rates
from r1ray.planning.scenario import Scenario
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.memory import learner_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Ranks and workers, and the completion tokens a second of each side. Producer: `best_split`."""

    ranks: int
    workers: int
    generated_s: float
    trained_s: float


def sides(rates: Rates, scenario: Scenario) -> Split:
    """Both sides of the configuration as it is, each as if it never waited for the other."""
    config = rates.config
    context = scenario.prompt_tokens + scenario.mean_tokens / 2
    samples = config.learner.groups_per_step * config.rollout.group_size
    completion = samples * scenario.mean_tokens
    packed = completion + samples * scenario.prompt_tokens
    return Split(
        ranks=config.learner.ranks,
        workers=config.rollout.workers,
        generated_s=config.rollout.workers * rates.generation_tokens_s(context),
        trained_s=completion / (rates.training_s(packed, context) + rates.sync_s()),
    )


def best_split(rates: Rates, scenario: Scenario) -> Split | None:
    """The split of all GPUs of the hardware with the most tokens a second on the slower side, among ranks that fit.

    The roofline decides, without queue and long tail; ranks are tried in steps of a host, or of one GPU within a host.
    None without GPUs, or if nothing fits.
    """
    config, hardware = rates.config, rates.config.hardware
    if hardware.gpu in (None, "cpu") or config.learner.num_gpus != 1:
        return None
    total, part = hardware.per_node * hardware.nodes, round(rates.engine_devices()) or 1
    unit = hardware.per_node if hardware.nodes > 1 else 1
    best: Split | None = None
    for ranks in range(unit, total, unit):
        if ranks % config.learner.sequence_parallel:
            continue
        workers = (total - ranks) // part
        changed = replace(config, learner=replace(config.learner, ranks=ranks))
        changed = replace(changed, rollout=replace(config.rollout, workers=workers))
        device, _ = learner_bytes(changed, rates.shape)
        if not workers or sum(device.values()) > ACCELERATORS[hardware.gpu].memory_bytes:
            continue
        split = sides(replace(rates, config=changed), scenario)
        if best is None or min(split.generated_s, split.trained_s) > min(best.generated_s, best.trained_s):
            best = split
    return best
