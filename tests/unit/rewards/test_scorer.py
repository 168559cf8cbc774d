"""Groups through the scorer: names of parts, names of failures, and no waiting for samples that hang."""

import os
import signal
import time

import pytest

from r1ray.errors import ConfigError, InfrastructureError, ProcessDied
from r1ray.rewards.base import Sample
from tests.unit.reward_support import group, judge, reward, scorer

OWN = "tests.unit.own_rewards"
GOOD = "<think>3 + 4</think> <answer>7</answer>"


def test_group_scores_by_weight_and_part():
    with scorer(reward("accuracy", verifier="math"), reward("format", 0.5)) as s:
        scored = s.score(group([GOOD, "the answer is 7", "<think>7</think>"], "7"))
    assert [x.reward for x in scored.scores] == [1.5, 1.0, 0.0]
    assert [x.parts for x in scored.scores] == [
        {"accuracy": 1.0, "format": 1.0},
        {"accuracy": 1.0, "format": 0.0},
        {"accuracy": 0.0, "format": 0.0},
    ]
    assert all(x.error is None for x in scored.scores)


def test_synthetic_prompt_is_checked_by_its_task():
    meta = {"synthetic": "arithmetic", "params": {"digits": [1, 2]}}
    with scorer(reward("accuracy", verifier="task")) as s:
        scored = s.score(group([GOOD, GOOD.replace("7", "8")], "7", meta=meta))
    assert [x.reward for x in scored.scores] == [1.0, 0.0]


def test_sources_select_rewards_and_parts_keep_full_names():
    rewards = [
        reward("accuracy/maths", verifier="math"),
        reward("accuracy/choice", verifier="choice"),
        reward("format"),
    ]
    sources = {"maths": ["accuracy/maths", "format"], "quiz": ["accuracy/choice"], "all": None}
    with scorer(*rewards, source_rewards=sources) as s:
        assert s.score(group([GOOD], "7", task="maths")).scores[0].parts == {"accuracy/maths": 1.0, "format": 1.0}
        quiz = s.score(group(["<answer>b</answer>"], "B", task="quiz")).scores[0]
        assert quiz.parts == {"accuracy/choice": 1.0}
        assert (quiz.of_kind("accuracy"), quiz.of_kind("format")) == (1.0, None)
        both = s.score(group(["b"], "B", task="all")).scores[0]
        assert set(both.parts) == {"accuracy/maths", "accuracy/choice", "format"}
        assert both.of_kind("accuracy") == min(both.parts["accuracy/maths"], both.parts["accuracy/choice"])


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([reward("acuracy")], "no reward 'acuracy' .did you mean 'accuracy'"),
        ([reward("accuracy", verifier="maths")], "did you mean 'math'"),
        (
            [reward("accuracy", verifier="exact", ignorecase=True)],
            "no parameter 'ignorecase' .did you mean 'ignore_case'",
        ),
        ([reward("accuracy", verifier="exact", ignore_case="yes")], "ignore_case: expected true or false, got 'yes'"),
        ([reward("format", style="r2")], "style: expected one of r1_zero, think, got 'r2'"),
        ([reward("length")], "length needs the parameter buffer_tokens"),
        ([reward("cosine_length", verifier="maths")], "did you mean 'math'"),
        ([reward("format"), reward("format")], "two rewards are called format"),
        ([reward(f"{OWN}:nothing")], "cannot be imported: AttributeError"),
        ([reward("no.such.module:judge")], "cannot be imported: ModuleNotFoundError"),
        ([reward(f"{OWN}:not_callable")], "expected a function, got 3"),
        ([reward(f"{OWN}:words", per_line=2)], "per_line"),
    ],
)
def test_invalid_rewards_are_refused_at_the_start(rewards, message):
    with pytest.raises(ConfigError, match=message), scorer(*rewards):
        pass


def test_source_with_an_unknown_reward_is_refused():
    with pytest.raises(ConfigError, match="the source maths uses the reward 'style'"):
        with scorer(reward("format"), source_rewards={"maths": ["style"]}):
            pass


def test_user_function_gets_sample_params_and_a_clean_process():
    os.environ["RAY_SECRET"] = "1"
    try:
        with scorer(reward(f"{OWN}:words", per_word=0.5), reward(f"{OWN}:environment"), reward(f"{OWN}:by_meta")) as s:
            s.check()
            score = judge(s, "a b \ud800", meta={"value": 4}, messages=({"role": "user", "content": "?"},))
    finally:
        del os.environ["RAY_SECRET"]
    assert score.error is None
    assert score.parts == {f"{OWN}:words": 1.5, f"{OWN}:environment": 1.0, f"{OWN}:by_meta": 4.0}


@pytest.mark.parametrize(
    ("function", "timeout_s", "error"),
    [
        ("hangs", 2.0, "VerifierTimeout: tests.unit.own_rewards:hangs: no verdict within 2 s"),
        ("dies", 10.0, "VerifierCrash: tests.unit.own_rewards:dies: the verifier's process died"),
        ("raises", 10.0, "VerifierCrash: tests.unit.own_rewards:raises: KeyError"),
        ("returns_nan", 10.0, "DataError: tests.unit.own_rewards:returns_nan: .* finite number"),
    ],
)
def test_failing_sample_has_a_named_error_and_the_next_is_scored(function, timeout_s, error):
    import re

    with scorer(reward(f"{OWN}:{function}"), reward("format"), timeout_s=timeout_s) as s:
        score = judge(s, "hang")
        assert re.match(error, score.error)
        assert (score.reward, score.parts) == (0.0, {"format": 0.0})
        if function == "hangs":
            assert judge(s, "go on").error is None


def test_unserialisable_sample_has_a_named_error_and_the_next_is_scored():
    with scorer(reward(f"{OWN}:words"), reward("format")) as s:
        score = judge(s, "a b", meta={"n": 2**70})
        assert score.error.startswith(f"VerifierCrash: {OWN}:words: OverflowError")
        assert score.parts == {"format": 0.0}
        assert judge(s, "a b").parts == {f"{OWN}:words": 2.0, "format": 0.0}


HOSTILE = {
    "9**9**9": ("\\boxed{9^{9^{9^9}}}", "7"),
    "a huge factorial": ("\\boxed{(10^7)!}", "7"),
    "deep nesting": ("\\boxed{" + "(" * 900 + "1" + ")" * 900 + "}", "7"),
    "a huge power": ("\\boxed{(x+y+z+w)^{400}}", "x"),
    "half a surrogate pair": ("\\boxed{\ud800x}", "7"),
    "NUL": ("\\boxed{\x00+1}", "7"),
}


def test_hostile_answers_end_within_the_limit():
    with scorer(reward("accuracy", verifier="math"), timeout_s=1.0) as s:
        s.check()
        began = time.perf_counter()
        pending = {name: s.begin(Sample(response=text, answer=truth)) for name, (text, truth) in HOSTILE.items()}
        scores = {name: p.result().score for name, p in pending.items()}
        assert time.perf_counter() - began < 10.0
    assert scores["9**9**9"].error.startswith("VerifierTimeout: accuracy")
    assert all(score.reward == 0.0 for score in scores.values())


def test_hanging_samples_do_not_delay_others():
    """More samples hang than there are slots, and each would keep its slot for half a minute."""
    with scorer(reward(f"{OWN}:hangs"), timeout_s=30.0, processors=2) as s:
        s.check()
        easy = [s.begin(Sample(response="go on")) for _ in range(8)]
        assert all(p.result().score.error is None for p in easy)  # their processes are there now
        for _ in range(16):
            s.begin(Sample(response="hang"))
        began = time.perf_counter()
        delays = []
        for _ in range(20):
            assert judge(s, "go on").reward == 1.0
            delays.append(time.perf_counter() - began)
            began = time.perf_counter()
    print(
        f"\n16 samples that hang delayed the first easy one by {1000 * delays[0]:.1f} ms, others by "
        f"{1000 * max(delays[1:]):.1f}"
    )
    assert delays[0] < 1.0
    assert sorted(delays)[10] < 0.25


def test_checks_that_compute_at_once_do_not_time_out_together():
    """Together they need several times the limit of one."""
    with scorer(reward(f"{OWN}:computes", seconds=0.4), timeout_s=2.4, processors=1) as s:
        s.check()
        pending = [s.begin(Sample(response=str(i))) for i in range(8)]
        assert [p.result().score.error for p in pending] == [None] * 8


def test_no_more_long_checks_run_at_once_than_there_are_processors(tmp_path):
    log = tmp_path / "log"
    with scorer(reward(f"{OWN}:spans"), timeout_s=10.0, processors=2) as s:
        s.check()
        pending = [s.begin(Sample(response=str(i), meta={"log": str(log)})) for i in range(5)]
        assert [p.result().score.reward for p in pending] == [1.0] * 5
    running = most = 0
    for mark in log.read_text():
        running += 1 if mark == "+" else -1
        most = max(most, running)
    assert 1 <= most <= 2


def test_a_check_that_computes_past_its_limit_ends_at_it():
    with scorer(reward(f"{OWN}:computes", seconds=60.0), timeout_s=0.5) as s:
        assert judge(s, "a").error.startswith("VerifierTimeout")
        assert judge(s, "a").error.endswith("no verdict within 0.5 s (reward_worker.timeout_s)")


def test_plain_answers_do_not_wait_for_processes():
    with scorer(reward("accuracy", verifier="math"), timeout_s=1.0) as s:
        s.check()
        for text, truth in HOSTILE.values():
            s.begin(Sample(response=text, answer=truth))
        began = time.perf_counter()
        scores = [judge(s, f"the answer is {i}", str(i)) for i in range(200)]
        assert time.perf_counter() - began < 2.0
    assert all(score.reward == 1.0 for score in scores)


def test_pool_restarts_a_killed_zygote():
    with scorer(reward(f"{OWN}:words"), timeout_s=5.0) as s:
        assert judge(s, "a b").reward == 2.0
        os.kill(s._pool._zygote._process.pid, signal.SIGKILL)
        s._pool._zygote._process.wait(5)
        outcomes = [judge(s, "a b") for _ in range(4)]
        assert outcomes[-1].reward == 2.0
        assert all(o.error is None for o in outcomes)


def test_sample_under_way_when_the_zygote_dies_is_not_blamed(tmp_path):
    begun = tmp_path / "begun"
    with scorer(reward(f"{OWN}:hangs"), timeout_s=60.0) as s:
        s.check()
        pending = s.begin(Sample(response="hang", meta={"begun": str(begun)}))
        deadline = time.monotonic() + 30
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(s._pool._zygote._process.pid, signal.SIGKILL)
        judged = pending.result()
    assert isinstance(judged.outage, ProcessDied)
    assert judged.score.error.startswith(f"ProcessDied: {OWN}:hangs: ")


def test_dead_zygote_is_an_infrastructure_error_of_the_group(monkeypatch):
    with scorer(reward(f"{OWN}:words"), timeout_s=5.0) as s:
        call, deaths = s._pool.call, [ProcessDied("the process that verifiers are forked from died")]
        monkeypatch.setattr(s._pool, "call", lambda *args: call(*args) if not deaths else _raise(deaths.pop()))
        with pytest.raises(
            InfrastructureError, match=r"group 0-0 could not be scored: ProcessDied: .*forked from died"
        ):
            s.score(group(["a b", "c"], None))
        assert [x.reward for x in s.score(group(["a b", "c"], None)).scores] == [2.0, 1.0]


def _raise(error):
    raise error


def test_module_that_workers_cannot_load_is_named():
    from r1ray.rewards.workers.pool import Pool

    pool = Pool(["no.such.module"], 1)
    with pytest.raises(ProcessDied, match=r"verifiers cannot load no\.such\.module: ModuleNotFoundError"):
        pool.start()
    pool.close()


def test_scoring_after_close_is_an_error():
    with scorer(reward(f"{OWN}:hangs"), timeout_s=30.0) as s:
        pending = s.begin(Sample(response="hang"))
    assert pending.result().score.error.startswith("ProcessDied")
