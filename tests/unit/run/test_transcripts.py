"""`r1ray inspect` on a real ledger."""

import io

import pytest
from rich.console import Console

from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.cli import build_app
from r1ray.codec import pack_scored
from r1ray.errors import ConfigError
from r1ray.ledger import Ledger, LedgerSettings
from r1ray.run.transcripts import Filter, found, render
from r1ray.types import Score, ScoredGroup
from tests.synthetic_run import write_run


def scored(group_id: str, index: int, texts: dict[str, float]) -> ScoredGroup:
    prompt = make_prompt(index, answer="17", task="bus")
    completions = [make_completion(len(text.split()), text=text, version=3) for text in texts]
    rollout = make_group(group_id, prompt, completions, worker_id="rollout-0")
    scores = tuple(Score(reward=r, parts={"accuracy": float(r > 1)}) for r in texts.values())
    return ScoredGroup(rollout=rollout, scores=scores)


@pytest.fixture
def run_dir(tmp_path):
    """Groups 0 and 1 bound to step 0, group 2 leased, group 3 dropped."""
    write_run(tmp_path, steps=1, evaluate_every=0)
    settings = LedgerSettings(groups_per_step=2, max_staleness=1, lease_timeout_s=60, max_attempts=1)
    ledger = Ledger.create(tmp_path / "ledger.sqlite", settings, run_id="bus-1a2b3c")
    leases = ledger.lease("rollout-0", 3, 4)
    texts = {"<think>wait, 12</think><answer>17</answer>": 1.5, "no [bold]idea[/bold]": 0.0, "<think>x</think>4": 0.5}
    ledger.put(pack_scored(scored(leases[0].group_id, 0, texts)))
    ledger.put(pack_scored(scored(leases[1].group_id, 1, {"a b": 0.0, "c d": 0.0})))
    ledger.fail(leases[3].group_id, "VerifierError", infrastructure=False)
    assert ledger.take(0) is not None
    ledger.close()
    return tmp_path


def shown(run_dir, *, completions: int = 4, limit: int = 10, **conditions) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    wanted = Filter(**conditions)
    for record, group in found(run_dir, wanted, limit=limit):
        console.print(render(record, group, wanted, completions=completions))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_a_group_is_shown_with_its_place_prompt_and_completions(run_dir):
    text = shown(run_dir, limit=1)
    assert "group 0-1  taken, step 0  rollout-0  policy 3" in text
    assert "user: question 0" in text
    assert "truth: 17" in text
    assert "reward 1.50  accuracy 1  2 tokens  stop" in text
    assert "no [bold]idea[/bold]" in text  # a model's brackets are not our markup
    assert "<think>" not in text
    assert "not shown" not in text


def test_thinking_is_dim_and_the_answer_is_not(run_dir):
    console = Console(file=io.StringIO(), width=100, highlight=False, force_terminal=True, color_system="standard")
    ((record, group),) = found(run_dir, Filter(min_reward=1.0), limit=1)
    console.print(render(record, group, Filter(min_reward=1.0), completions=4))
    assert "\x1b[2mwait, 12\x1b[0m" in console.file.getvalue()
    assert "\x1b[1m17\x1b[0m" in console.file.getvalue()


def test_filters_choose_groups_and_completions(run_dir):
    assert "question 1" not in shown(run_dir, min_reward=0.1)
    low = shown(run_dir, min_reward=0.1, max_reward=1.0)
    assert "reward 0.5" in low
    assert "reward 1.50" not in low
    assert "2 of 3 completions not shown" in low
    assert "group 0-1" not in shown(run_dir, text="C D")
    assert shown(run_dir, step=7) == ""
    assert "2 of 3 completions not shown" in shown(run_dir, limit=1, completions=1)


def test_groups_without_completions_say_why(run_dir):
    assert "group 2-1  leased  rollout-0\nnot scored yet" in shown(run_dir, state="leased")
    assert "dropped: VerifierError\nit was never scored" in shown(run_dir, state="dropped")


def test_a_run_without_a_ledger_is_refused_by_name(tmp_path):
    write_run(tmp_path, steps=1, evaluate_every=0)
    with pytest.raises(ConfigError, match="has no ledger: the run has not leased"):
        list(found(tmp_path, Filter(), limit=1))


def test_the_command_prints_groups_and_says_when_none_fits(run_dir, capsys):
    app = build_app()
    app(["inspect", str(run_dir), "--step", "0", "--limit", "1"], standalone_mode=False)
    assert "group 0-1" in capsys.readouterr().out
    app(["inspect", str(run_dir), "--step", "9"], standalone_mode=False)
    assert "No group of this run matches." in capsys.readouterr().out


def test_the_report_shows_what_the_ledger_dropped(run_dir, capsys):
    build_app()(["report", str(run_dir)], standalone_mode=False)
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert "Groups dropped: VerifierError" in (run_dir / "report.html").read_text()
    build_app()(["report", str(run_dir), "--json"], standalone_mode=False)
    assert '"dropped_groups": 1' in capsys.readouterr().out
