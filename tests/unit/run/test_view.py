"""The terminal views: what is on the screen, and that untrusted text cannot style or break it."""

import io

import pytest
from rich.console import Console

from r1ray.run.lines import evaluation_line
from r1ray.run.view import LiveView, PlainView, make_view
from r1ray.util.formatting import duration, number, printable, share, sparkline


def status(step: int = 11, **changes):
    metrics = {
        "step": step,
        "reward/mean": 1.0 + step / 100,
        "reward/part/accuracy": 0.74,
        "reward/part/format": 0.97,
        "length/mean": 30.4,
        "staleness/mean": 0.9,
        "staleness/max": 1,
    }
    base = {
        "state": "running",
        "waiting_for": "a batch",
        "message": "",
        "step": step + 1,
        "steps": 40,
        "workers": [{"id": "rollout-0", "role": "rollout", "state": "HEALTHY", "version": 12, "tokens_per_s": 5620.0}],
        "queue": {"leased": 64, "scored": 32, "taken": 0, "trained": 384, "dropped": 2, "oldest_lease_s": 3.0},
        "rates": {"rollout_tokens_per_s": 5620.0, "learner_tokens_per_s": 5480.0},
        "last_sync": {"version": 12, "seconds": 0.11, "age_s": 1.2},
        "metrics": metrics,
        "evaluation": {
            "step": 10,
            "source": "bus",
            "accuracy": 0.72,
            "greedy_accuracy": 1.0,
            "format": 0.96,
            "length": 30,
        },
        "eta_s": 100.0,
        "elapsed_s": 72.0,
    }
    return base | changes


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=40, color_system=None)


def screen(view: LiveView, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view.render())
    return console.file.getvalue()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_kind_of_view_follows_the_console():
    assert isinstance(make_view(terminal(), total_steps=1), LiveView)
    assert isinstance(make_view(Console(file=io.StringIO()), total_steps=1), PlainView)


def test_plain_lines_are_one_a_phase_a_step_and_an_evaluation():
    clock = Clock()
    out = io.StringIO()
    with make_view(Console(file=out, width=40), total_steps=40, clock=clock) as view:
        view.phase("engine", 0, 2)
        clock.now = 4.0
        view.phase("engine", 1, 2)
        view.phase("engine", 2, 2)
        view.phase("engine", 2, 2)
        view.update(status(11))
        view.update(status(11, eta_s=99.0))
        view.line("worker [bold]rollout-1[/bold] died")
    assert out.getvalue().splitlines() == [
        "engine ...",
        "engine: done in 4.0 s",
        "running",
        "step 12/40  reward 1.11  accuracy 74%  length 30.4  rollout 5,620 tok/s  learner 5,480 tok/s  "
        "staleness 0.9  1m 40s left",
        "bus: accuracy 72% sampled, 100% greedy, format 96%, length 30 (policy 10)",
        "worker [bold]rollout-1[/bold] died",
    ]


def test_an_evaluation_says_how_many_samples_could_not_be_scored():
    row = {"source": "bus", "accuracy": 0.0, "greedy_accuracy": 0.0, "length": 30, "errors": 1280, "step": 10}
    assert "accuracy 0% sampled, 0% greedy, 1,280 samples could not be scored, format" in evaluation_line(row)
    assert "could not be scored" not in evaluation_line({**row, "errors": 0})


def test_the_screen_shows_the_phases_until_the_first_step():
    clock = Clock()
    view = LiveView(terminal(), 40, clock)
    view.phase("base model", 3, 3)
    view.phase("rollout engine", 0, 0)
    clock.now = 7.0
    text = screen(view)
    assert "✓  base model" in text
    assert "rollout engine" in text
    assert "7.0 s" in text
    view.update(status())
    assert "rollout engine" not in screen(view)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_screen_has_every_figure_and_fits_the_width(width):
    view = LiveView(terminal(width), 40, Clock())
    for step in range(12):
        view.update(status(step))
    text = screen(view, width)
    for wanted in (
        "step 12 of 40",
        "waiting for a batch",
        "1.11",
        "30.4",
        "5,620 rollout",
        "5,480 learner",
        "64 leased",
        "▁",
    ):
        assert wanted in text
    for wanted in ("at most 1", "policy 12", "0.1 s", "1m 40s left", "72% sampled", "rollout-0"):
        assert wanted in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_curves_forget_the_steps_that_a_rewind_repeats():
    view = LiveView(terminal(), 40, Clock())
    for step in (0, 1, 2, 3, 2):
        view.update(status(step))
    curve = next(line for line in screen(view).splitlines() if "reward" in line)
    assert sum(c in "▁▂▃▄▅▆▇█" for c in curve) == 3


def test_a_status_with_almost_nothing_in_it_is_shown():
    view = LiveView(terminal(), 40, Clock())
    view.update({"state": "starting"})
    assert "step 0 of 40" in screen(view)
    view.update({"state": "running", "step": 1, "metrics": {"step": 0}})
    assert "running" in screen(view)


def test_a_live_screen_opens_and_closes():
    console = terminal()
    with make_view(console, total_steps=40) as view:
        view.update(status())
        view.line("[red]not markup")
    assert "[red]not markup" in console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (5620.4, "5,620"),
        (123.4, "123"),
        (30.44, "30.4"),
        (1.256, "1.26"),
        (0.03123, "0.0312"),
        (3e-6, "3e-06"),
    ],
)
def test_numbers_have_about_three_figures(value, text):
    assert number(value) == text


def test_durations_and_shares():
    assert [duration(s) for s in (0.11, 59.97, 100, 7620)] == ["0.1 s", "1m 00s", "1m 40s", "2h 07m"]
    assert [share(v) for v in (None, 0.0, 0.004, 0.72, 0.995, 1.0)] == ["–", "0%", "0.4%", "72%", "99.5%", "100%"]


def test_sparklines_shrink_by_averaging_and_leave_out_what_is_not_finite():
    assert sparkline([0, 1], 10) == "▁█"
    assert sparkline([0, 0, 1, 1], 2) == "▁█"
    assert sparkline([2, 2, 2], 5) == "▄▄▄"
    assert sparkline([float("nan")], 5) == sparkline([], 5) == ""


def test_control_characters_are_made_visible():
    assert printable("a\tb\n\x1b[2J\r\x9b") == "a\tb\n␛[2J␍␦"
