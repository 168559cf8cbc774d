"""Charts of a run: which ones there are, and how each is made from the records of the run.

A panel without data is not shown; the page says which and why in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from r1ray.report.charts import Chart, Series
from r1ray.report.record import RunRecord
from r1ray.util.formatting import number, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart of metrics over training steps. A key that ends in `/` matches all metrics with that prefix."""

    title: str
    note: str
    keys: tuple[tuple[str, str], ...]  # (metric, name in the legend)
    show: Callable[[float], str] = number
    top: float | None = None
    zero: bool = True
    reason_if_absent: str = "not recorded by this run"
    exclude: str | None = None  # prefix of the metrics that another panel shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, an introduction, and a row of charts."""

    title: str
    lead: str
    panels: tuple[Panel, ...]


ANSWERS = Section(
    title="Responses",
    lead="Rewards and lengths of the responses sampled for training.",
    panels=(
        Panel(title="Reward", note="weighted sum, mean of the step", keys=(("reward/mean", "mean"),)),
        Panel(
            title="Reward parts",
            note="unweighted mean of each",
            keys=(("reward/part/", ""),),
            exclude="reward/part/model",
        ),
        Panel(
            title="Reward models",
            note="unweighted mean score",
            keys=(("reward/part/model", "model"), ("reward/part/model/", "")),
            zero=False,  # scores of a pairwise model have no bounds and no meaningful zero
            reason_if_absent="none in this run",
        ),
        Panel(
            title="Reward and length",
            note="correlation within groups; near 1, length alone is rewarded",
            keys=(("reward/length_correlation", "reward"), ("reward/length_correlation/", "")),
            zero=False,
        ),
        Panel(
            title="Response length",
            note="tokens",
            keys=(("length/mean", "mean"), ("length/max", "longest")),
        ),
        Panel(
            title="Truncated or empty",
            note="share cut off at the token limit, share without text",
            keys=(("length/truncated", "truncated"), ("length/empty", "empty")),
            show=share,
        ),
    ),
)

OPTIMISATION = Section(
    title="Optimisation",
    lead="Training health: remaining entropy for exploration, gradient norms, and how much is clipped.",
    panels=(
        Panel(title="Entropy", note="nats per token", keys=(("train/entropy", "entropy"),)),
        Panel(
            title="KL to the reference",
            note="nats per token, k3 estimate",
            keys=(("train/kl", "KL"),),
            reason_if_absent="no reference in this run",
        ),
        Panel(title="Gradient norm", note="before clipping", keys=(("train/grad_norm", "norm"),)),
        Panel(
            title="Clip fraction",
            note="share of tokens clipped",
            keys=(("train/clip_fraction", "clipped"),),
            show=share,
        ),
        Panel(title="Probability ratio", note="mean over tokens", keys=(("train/ratio_mean", "ratio"),), zero=False),
        Panel(title="Loss", note="surrogate objective, negated", keys=(("train/loss", "loss"),)),
        Panel(title="Learning rate", note="of each step", keys=(("train/lr", "rate"),)),
        Panel(
            title="Skipped steps",
            note="gradient not finite",
            keys=(("train/skipped", "skipped"),),
        ),
    ),
)

OFF_POLICY = Section(
    title="Off-policy",
    lead="Responses are sampled while the learner trains. Staleness: how many training steps old the sampling policy "
    "was. Mismatch: how much vLLM and the learner disagree about the same policy.",
    panels=(
        Panel(
            title="Staleness", note="training steps", keys=(("staleness/mean", "mean"), ("staleness/max", "maximum"))
        ),
        Panel(
            title="Policy drift",
            note="mean |log ratio| over stale tokens",
            keys=(("staleness/log_ratio", "drift"),),
            reason_if_absent="no stale tokens",
        ),
        Panel(
            title="KL from the sampling policy",
            note="nats per token, k3 estimate over stale tokens",
            keys=(("staleness/kl", "KL"),),
            reason_if_absent="no stale tokens",
        ),
        Panel(
            title="Engine mismatch",
            note="|log-probability| difference, same policy",
            keys=(("mismatch/mean", "mean"), ("mismatch/max", "maximum")),
        ),
    ),
)

TIME = Section(
    title="Time and throughput",
    lead="Rollout and learner run concurrently; the idle one waits for the other.",
    panels=(
        Panel(
            title="Throughput",
            note="tokens per second",
            keys=(("rollout/tokens_per_s", "rollout"), ("learner/tokens_per_s", "learner")),
        ),
        Panel(
            title="Idle",
            note="share of the step",
            keys=(("rollout/idle_share", "rollout"), ("learner/idle_share", "learner")),
            show=share,
            top=1.0,
        ),
        Panel(
            title="Learner",
            note="seconds per step",
            keys=(("learner/step_s", "training"), ("batch/wait_s", "waiting for a batch")),
        ),
        Panel(
            title="Weight sync",
            note="seconds",
            keys=(("sync/seconds", "total"), ("sync/apply_s", "engine paused"), ("sync/digest_s", "digest")),
        ),
        Panel(
            title="Queue",
            note="groups",
            keys=(("queue/ready", "ready"), ("queue/leased", "in flight")),
        ),
        Panel(
            title="Lost work",
            note="groups so far",
            keys=(("queue/dropped", "dropped"), ("queue/reissued", "leased again")),
        ),
        Panel(title="Reward workers", note="seconds per group", keys=(("reward_worker/seconds", "scoring"),)),
        Panel(title="Memory", note="resident bytes, largest process of each kind", keys=(("memory/", ""),)),
        Panel(title="Rollout workers", note="in the last sync", keys=(("sync/workers", "workers"),)),
    ),
)

FINETUNING = Section(
    title="Supervised fine-tuning",
    lead="How well the model predicts the responses of the training conversations.",
    panels=(
        Panel(title="Loss", note="negative log-likelihood, nats per token", keys=(("sft/loss", "training"),)),
        Panel(title="Perplexity", note="exp(loss)", keys=(("sft/perplexity", "training"),)),
        Panel(
            title="Token accuracy",
            note="share of tokens that the model ranks first",
            keys=(("sft/token_accuracy", "training"),),
            show=share,
            top=1.0,
        ),
    ),
)

REWARD_MODEL = Section(
    title="Reward model",
    lead="How well the scores agree with the preferences.",
    panels=(
        Panel(title="Loss", note="mean over rows", keys=(("reward_model/loss", "training"),)),
        Panel(
            title="Accuracy",
            note="share of rows on which the score is right",
            keys=(("reward_model/accuracy", "training"),),
            show=share,
            top=1.0,
        ),
    ),
)

_SUPERVISED_OPTIMISATION = Section(
    title=OPTIMISATION.title,
    lead="Training health.",
    panels=tuple(p for p in OPTIMISATION.panels if p.title in ("Gradient norm", "Learning rate", "Skipped steps")),
)

SECTIONS = {
    "train": (ANSWERS, OPTIMISATION, OFF_POLICY, TIME),
    "sft": (FINETUNING, _SUPERVISED_OPTIMISATION),
    "reward-model": (REWARD_MODEL, _SUPERVISED_OPTIMISATION),
}
"""Sections by the command of the run (`Identity.use`)."""


def chart(panel: Panel, run: RunRecord) -> Chart | str:
    """Return the panel's chart, or the reason why there is none."""
    series: list[Series] = []
    for key, name in _expand(panel, run):
        points = tuple((float(row["step"]), float(row[key])) for row in run.metrics if key in row)
        if any(math.isfinite(y) for _, y in points):
            series.append(Series(name=name, points=points, colour=len(series) % 6 + 1))
    if not series:
        return panel.reason_if_absent
    constants = [s.points[0][1] for s in series if len({y for _, y in s.points}) == 1]
    if len(constants) == len(series):
        return f"{' and '.join(panel.show(c) for c in constants)} throughout"
    return Chart(
        title=panel.title, note=panel.note, series=tuple(series), show=panel.show, top=panel.top, zero=panel.zero
    )


def _expand(panel: Panel, run: RunRecord) -> list[tuple[str, str]]:
    known = sorted({key for row in run.metrics for key in row})
    if panel.exclude is not None:
        known = [key for key in known if not key.startswith(panel.exclude)]
    out: list[tuple[str, str]] = []
    for key, name in panel.keys:
        if key.endswith("/"):
            out += [(k, k.removeprefix(key).replace("_", " ")) for k in known if k.startswith(key)]
        elif key in known:
            out.append((key, name))
    return out
