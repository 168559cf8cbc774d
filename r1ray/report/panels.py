"""Which charts a report has: a declaration of each, and its making from a run's records.

A panel without data is left out, and the page says which and why in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from r1ray.report.record import RunRecord
from r1ray.report.reflection import shares
from r1ray.report.svg import Chart, Series
from r1ray.util.formatting import number, share
from r1ray.util.responses import ReflectiveWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart of metrics over training steps. A key that ends in `/` stands for all metrics below it but those `without`."""

    title: str
    note: str
    keys: tuple[tuple[str, str], ...]  # (metric, name in the legend)
    show: Callable[[float], str] = number
    top: float | None = None
    zero: bool = True
    absent: str = "not recorded by this run"
    without: str | None = None  # beginning of the metrics that are left to another panel


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, a sentence, and a row of charts."""

    title: str
    lead: str
    panels: tuple[Panel, ...]


ANSWERS = Section(
    title="The responses",
    lead="What the sampled training responses earn, and how long they get.",
    panels=(
        Panel(title="Reward", note="weighted sum, mean of the step", keys=(("reward/mean", "mean"),)),
        Panel(
            title="Reward parts",
            note="mean of each, unweighted",
            keys=(("reward/part/", ""),),
            without="reward/part/model",
        ),
        Panel(
            title="Reward models",
            note="mean score, unweighted",
            keys=(("reward/part/model", "model"), ("reward/part/model/", "")),
            zero=False,  # scores of a pairwise model have neither bounds nor a zero that means anything
            absent="none in this run",
        ),
        Panel(
            title="Reward and length",
            note="correlation within groups: 1 pays for length alone",
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
    title="The optimisation",
    lead="Whether learning is healthy: entropy left to explore with, and steps neither clipped away nor wild.",
    panels=(
        Panel(title="Entropy", note="nats a token", keys=(("train/entropy", "entropy"),)),
        Panel(
            title="KL to the reference",
            note="nats a token, k3 estimate",
            keys=(("train/kl", "KL"),),
            absent="no reference in this run",
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
        Panel(title="Learning rate", note="of the step", keys=(("train/lr", "rate"),)),
        Panel(
            title="Skipped steps",
            note="for a gradient that was not finite",
            keys=(("train/skipped", "skipped"),),
        ),
    ),
)

OFF_POLICY = Section(
    title="Off-policy",
    lead="Responses are sampled while the learner trains. Staleness is how many steps behind their policy was; "
    "mismatch is how far vLLM and the learner disagree about the very same policy.",
    panels=(
        Panel(
            title="Staleness", note="training steps", keys=(("staleness/mean", "mean"), ("staleness/max", "highest"))
        ),
        Panel(
            title="Policy drift",
            note="mean |log ratio| over stale tokens",
            keys=(("staleness/log_ratio", "drift"),),
            absent="no stale tokens",
        ),
        Panel(
            title="Engine mismatch",
            note="|log-probability| difference, same policy",
            keys=(("mismatch/mean", "mean"), ("mismatch/max", "highest")),
        ),
    ),
)

TIME = Section(
    title="Where the time goes",
    lead="Rollout and learner run side by side: the one that idles waits for the other.",
    panels=(
        Panel(
            title="Throughput",
            note="tokens a second",
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
            note="seconds a step",
            keys=(("learner/step_s", "training"), ("batch/wait_s", "waiting for a batch")),
        ),
        Panel(
            title="Weight sync",
            note="seconds",
            keys=(("sync/seconds", "whole"), ("sync/apply_s", "engine stopped"), ("sync/digest_s", "digest")),
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
        Panel(title="Reward workers", note="seconds a group", keys=(("reward_worker/seconds", "scoring"),)),
        Panel(title="Rollout workers", note="in the last sync", keys=(("sync/workers", "workers"),)),
    ),
)

FINETUNING = Section(
    title="The conversations",
    lead="How well the model continues the conversations that it is trained on: their responses only.",
    panels=(
        Panel(title="Loss", note="negative log-likelihood, nats a token", keys=(("sft/loss", "training"),)),
        Panel(title="Perplexity", note="e to the loss", keys=(("sft/perplexity", "training"),)),
        Panel(
            title="Token accuracy",
            note="share of tokens that are the most likely",
            keys=(("sft/token_accuracy", "training"),),
            show=share,
            top=1.0,
        ),
    ),
)

_STEPS_OF_SFT = Section(
    title=OPTIMISATION.title,
    lead="Whether learning is healthy.",
    panels=tuple(p for p in OPTIMISATION.panels if p.title in ("Gradient norm", "Learning rate", "Skipped steps")),
)

SECTIONS = {"train": (ANSWERS, OPTIMISATION, OFF_POLICY, TIME), "sft": (FINETUNING, _STEPS_OF_SFT)}
"""By the command that a run is of."""


def chart(panel: Panel, run: RunRecord) -> Chart | str:
    """The panel's chart, or the reason why there is none."""
    series: list[Series] = []
    for key, name in _expand(panel, run):
        points = tuple((float(row["step"]), float(row[key])) for row in run.metrics if key in row)
        if any(math.isfinite(y) for _, y in points):
            series.append(Series(name=name, points=points, colour=len(series) % 6 + 1))
    if not series:
        return panel.absent
    constants = [s.points[0][1] for s in series if len({y for _, y in s.points}) == 1]
    if len(constants) == len(series):
        return f"{' and '.join(panel.show(c) for c in constants)} throughout"
    return Chart(
        title=panel.title, note=panel.note, series=tuple(series), show=panel.show, top=panel.top, zero=panel.zero
    )


def _expand(panel: Panel, run: RunRecord) -> list[tuple[str, str]]:
    known = sorted({key for row in run.metrics for key in row})
    if panel.without is not None:
        known = [key for key in known if not key.startswith(panel.without)]
    out: list[tuple[str, str]] = []
    for key, name in panel.keys:
        if key.endswith("/"):
            out += [(k, k.removeprefix(key).replace("_", " ")) for k in known if k.startswith(key)]
        elif key in known:
            out.append((key, name))
    return out


def accuracy_chart(run: RunRecord) -> Chart | str:
    """Held-out accuracy over training steps: sampled with its standard error, greedy and majority vote, each source."""
    series = []
    for i, source in enumerate(run.sources):
        prefix = f"{source}, " if len(run.sources) > 1 else ""
        for key, name, dashed in (
            ("accuracy", "sampled", False),
            ("greedy_accuracy", "greedy", True),
            ("consensus", "majority vote", True),
        ):
            rows = [row for row in run.evaluated(source) if row.get(key) is not None]
            if not rows:
                continue
            errors = tuple(float(row.get("accuracy_se") or 0.0) for row in rows) if key == "accuracy" else ()
            points = tuple((float(row["step"]), float(row[key])) for row in rows)
            colour = (2 * i + (key == "consensus") * 4) % 6 + 1
            series.append(
                Series(name=prefix + name, points=points, colour=colour, dashed=dashed, marked=True, errors=errors)
            )
    if not series:
        return "nothing was evaluated"
    return Chart(title="Held-out accuracy", note="share of problems solved", series=tuple(series), show=share, top=1.0)


def evaluated_chart(run: RunRecord, key: str, *, title: str, note: str, show: Callable[[float], str]) -> Chart | str:
    """One column of the evaluations over training steps, a line a source."""
    series = []
    for i, source in enumerate(run.sources):
        points = tuple(
            (float(row["step"]), float(row[key])) for row in run.evaluated(source) if row.get(key) is not None
        )
        if points:
            series.append(Series(name=source, points=points, colour=2 * i % 6 + 1, marked=True))
    if not series:
        return "nothing was evaluated"
    return Chart(title=title, note=note, series=tuple(series), show=show, top=1.0 if show is share else None)


def reflection_chart(run: RunRecord, words: ReflectiveWords) -> Chart | str:
    """Share of the kept responses that reconsider, in bins of at least twenty responses."""
    points = shares(run.transcripts, words)
    if not points:
        return "no responses were kept"
    if not any(y for _, y in points):
        return f"none of the kept responses says {', '.join(words.words)}"
    line = Series(name="reconsider", points=points, colour=1, marked=True)
    return Chart(title="Reflective words", note="share of kept responses with one", series=(line,), show=share)
