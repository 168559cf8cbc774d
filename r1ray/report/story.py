"""The top of the page: the run in a sentence and its key figures."""

from __future__ import annotations

from collections.abc import Mapping

from r1ray.report.figures import Figure
from r1ray.report.markup import Markup, node
from r1ray.report.record import RunRecord
from r1ray.util.formatting import duration, number, share


def name_of(run: RunRecord) -> str:
    """The run's name in its configuration, else its id."""
    return str(run.setting("run.name") or run.identity.run_id)


def header(run: RunRecord, figures: Mapping[str, Figure]) -> Markup:
    """Title, what happened in two or three sentences, and the tiles."""
    over = [node("span", "r1ray run report"), node("span", run.identity.run_id), node("span", _state(run))]
    return node(
        "header",
        node("div", *over, class_="over"),
        node("h1", name_of(run)),
        node("p", " ".join(_sentences(run, figures)), class_="lead"),
        node("dl", *_tiles(figures), class_="tiles") if run.metrics or run.evaluations else None,
    )


def _state(run: RunRecord) -> str:
    wanted = run.setting("run.steps")
    return run.state if run.state == "finished" or not wanted else f"{run.state}, {run.steps:,} of {wanted:,} steps"


def _sentences(run: RunRecord, figures: Mapping[str, Figure]) -> list[str]:
    if not run.metrics:
        return ["No training step was finished yet, so there is nothing to plot."]
    value = {key: figure.value for key, figure in figures.items()}
    steps = f"{run.steps:,} training step{'s' if run.steps != 1 else ''}"
    if run.identity.use == "sft":
        return _finetuned(run, steps)
    out = []
    start, end = value["heldout_accuracy_start"], value["heldout_accuracy"]
    if isinstance(start, float | int) and isinstance(end, float | int) and value["heldout_step"]:
        text = f"Held-out accuracy on {value['heldout_source']} went from {share(start)} to {share(end)} in {steps}"
        first, last = value["heldout_greedy_accuracy_start"], value["heldout_greedy_accuracy"]
        if isinstance(first, float | int) and isinstance(last, float | int):
            text += f", and from {share(first)} to {share(last)} with greedy decoding"
        out.append(text + ".")
    elif isinstance(end, float | int):
        out.append(f"{steps} so far. Policy {value['heldout_step']} solves {share(end)} of {value['heldout_source']}.")
    else:
        out.append(f"{steps} so far; no held-out problems were evaluated.")
    first, last = value["length_start"], value["length_end"]
    if run.steps > 1 and isinstance(first, float | int) and isinstance(last, float | int):
        verb = "grew" if last > first else "shrank" if last < first else "stayed"
        out.append(f"Responses {verb} from {number(first)} to {number(last)} tokens on average.")
    seconds = value["training_seconds"]
    if isinstance(seconds, float):
        out.append(f"Training took {duration(seconds)} after the first step.")
    return out


def _finetuned(run: RunRecord, steps: str) -> list[str]:
    rows = run.evaluated(run.sources[0]) if run.sources else []
    if len(rows) < 2:
        return [f"{steps} of supervised fine-tuning so far."]
    first, last = rows[0], rows[-1]
    hits = f"{share(first['token_accuracy'])} to {share(last['token_accuracy'])}"
    return [
        f"Held-out loss on {run.sources[0]} went from {number(first['loss'])} to {number(last['loss'])} nats a token in {steps} "
        f"of supervised fine-tuning, and the share of its tokens that are the most likely from {hits}."
    ]


_TILES = (
    ("heldout_accuracy", "Held-out accuracy, sampled"),
    ("heldout_greedy_accuracy", "Held-out accuracy, greedy"),
    ("heldout_format", "Held-out format"),
    ("heldout_token_accuracy", "Held-out tokens right"),
    ("heldout_loss", "Held-out loss, nats a token"),
    ("length_end", "Response length, tokens"),
    ("completion_tokens_per_second", "Completion tokens trained a second"),
    ("seconds_to_first_step", "Start to first step"),
)


def _tiles(figures: Mapping[str, Figure]) -> list[Markup]:
    out = []
    for key, label in _TILES:
        figure = figures[key]
        if figure.value is None:
            continue
        before = figures.get("length_start" if key == "length_end" else f"{key}_start")
        was = f"from {before.text}" if before and before.value not in (None, figure.value) else None
        value = node("dd", figure.text, node("span", was, class_="was") if was else None)
        out.append(node("div", node("dt", label), value, class_="tile"))
    return out
