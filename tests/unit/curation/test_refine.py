"""Refinement: a request is never repeated after its reply, and a refined text is correct and readable, or dropped."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from r1ray.config.schema import Config, CurationConfig, RefineConfig, RewardConfig, SourceConfig
from r1ray.curation.curate import Refinement, curate
from r1ray.curation.refine import Refiner
from r1ray.curation.review import Review
from r1ray.errors import ConfigError, InfrastructureError, RequestRefused, RetryBudgetExhausted
from r1ray.rewards.learned import endpoint as endpoint_module
from r1ray.sampling.store import SampleRow
from tests.unit.curation_support import prompts
from tests.unit.endpoint_support import Answer, endpoint

NICER = "I add them up"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.0)


def answer_in(prompt: str) -> str:
    return re.findall(r"<answer>(\d+)</answer>|answer is (\d+)\.", prompt)[0][0]


def nicer(prompt: str) -> Answer:
    """A good model: other words, the same answer."""
    return 200, f"<think>{NICER}.</think> <answer>{answer_in(prompt)}</answer>"


def whole_config(url: str, **curation: Any) -> Config:
    config = Config()
    config.rewards = [RewardConfig(name="accuracy", params={"verifier": "exact"}), RewardConfig(name="format")]
    config.data.train = [SourceConfig(name="sums", path="sums")]
    refine = RefineConfig(url=url, model="m", retries=1, **{"parallel": 2, **curation.pop("refine", {})})
    config.curation = CurationConfig(refine=refine, **curation)
    return config


def run(folder: Path, samples: list[SampleRow], config: Config) -> dict[str, Any]:
    with (
        closing(Refiner(config.curation.refine, folder / "refined.jsonl")) as refiner,
        closing(Review(config)) as review,
    ):
        refinement = Refinement(ask=refiner.refine, review=review)
        return curate(folder, lambda: iter(samples), config.curation, seed=0, count_tokens=len, refinement=refinement)


def texts(folder: Path) -> list[str]:
    return [row[-1]["content"] for row in parquet.read_table(folder / "dataset")["messages"].to_pylist()]


def test_what_is_kept_is_refined_and_nothing_else_is_asked_for(tmp_path: Path) -> None:
    with endpoint(nicer) as (url, asked):
        report = run(tmp_path, prompts(6, 2), whole_config(url, per_prompt=1, quotas={"sums": 4}))
    assert len(asked) == 4
    assert report["total"]["kept"] == 4
    assert all(NICER in text for text in texts(tmp_path))
    request = asked[0]["messages"][0]["content"]
    assert "apples and" in request
    assert "Here" in request


def test_what_was_refined_is_not_asked_for_again_and_the_result_is_the_same(tmp_path: Path) -> None:
    with endpoint(nicer, nicer, nicer, (503, "down")) as (url, asked):
        with pytest.raises(InfrastructureError, match=r"the refinement at .* answered 503"):
            run(tmp_path, prompts(6), whole_config(url, refine={"parallel": 1}))
        assert not (tmp_path / "report.json").exists()
        assert len(asked) == 5  # three replies, and twice the fourth
    with endpoint(nicer) as (url, asked):
        run(tmp_path, prompts(6), whole_config(url))
        assert len(asked) == 3
        first = texts(tmp_path)
        run(tmp_path, prompts(6), whole_config(url))
        assert len(asked) == 3
    assert texts(tmp_path) == first
    assert len(first) == 6


def test_a_line_that_a_killed_run_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    with endpoint(nicer) as (url, asked):
        run(tmp_path, prompts(2), whole_config(url))
        journal = tmp_path / "refined.jsonl"
        journal.write_bytes(journal.read_bytes() + b'{"key": "half')
        run(tmp_path, prompts(2), whole_config(url))
        assert len(asked) == 2
        assert journal.read_bytes().endswith(b"}\n")
        journal.write_text("something else\n")
        with pytest.raises(ConfigError, match="no journal of refinements"):
            run(tmp_path, prompts(2), whole_config(url))


def test_the_budget_is_of_all_runs_together(tmp_path: Path) -> None:
    with endpoint(nicer) as (url, asked):
        for _ in range(2):
            with pytest.raises(RetryBudgetExhausted, match=r"curation\.refine\.max_calls"):
                run(tmp_path, prompts(5), whole_config(url, refine={"max_calls": 3}))
            assert len(asked) == 3
        run(tmp_path, prompts(5), whole_config(url, refine={"max_calls": 5}))
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, "<think>I guess.</think> <answer>99999</answer>"), "refine_incorrect"),
        ((200, "<think>Without an end. <answer>5</answer>"), "refine_unreadable"),
        ((200, "<think>我们先把七和五加起来。</think> <answer>5</answer>"), "refine_unreadable"),
        ((200, " "), "refine_refused"),
        ((400, "the prompt is too long"), "refine_refused"),
    ],
)
def test_a_refined_text_that_is_of_no_use_drops_the_sample(tmp_path: Path, answer: Answer, reason: str) -> None:
    with endpoint(answer) as (url, _):
        report = run(tmp_path, prompts(1), whole_config(url, style="r1_zero", min_language=0.9))
    assert report["total"]["dropped"] == {reason: 1}
    assert report["total"]["kept"] == 0


def test_the_form_is_that_of_the_dataset_whatever_the_model_puts_around_it(tmp_path: Path) -> None:
    def loose(prompt: str) -> Answer:
        return 200, f"```text\n<think> {NICER} </think>The answer is {answer_in_sentence(prompt)}.\n```"

    def answer_in_sentence(prompt: str) -> str:
        return re.findall(r"answer is (\d+)", prompt)[-1]

    with endpoint(loose) as (url, _):
        run(tmp_path, prompts(1), whole_config(url, format="think_summary", style="r1_zero"))
    assert texts(tmp_path) == [f"<think>\n{NICER}\n</think>\n\nThe answer is 5."]


def test_a_refusal_that_is_about_every_request_ends_the_run(tmp_path: Path) -> None:
    with endpoint((401, "who are you")) as (url, asked):
        with pytest.raises(RequestRefused, match="answered 401"):
            run(tmp_path, prompts(3), whole_config(url, refine={"parallel": 1}))
        assert len(asked) == 1
    assert "text" not in (tmp_path / "refined.jsonl").read_text()


def test_a_key_that_is_not_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1RAY_TEST_KEY", raising=False)
    config = whole_config("http://127.0.0.1:1/v1", refine={"key_variable": "R1RAY_TEST_KEY"})
    with pytest.raises(ConfigError, match="refinement: the environment variable R1RAY_TEST_KEY"):
        run(tmp_path, prompts(1), config)
