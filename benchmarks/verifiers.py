"""Throughput of verifiers, and the delay that hostile samples cause to others.

    python -m benchmarks.verifiers [--repeats 3] [--write]        (make bench-verifiers)

Plain answers, symbolic comparisons, short sandboxed programs and function tests per second, and the delay that hostile
answers cause to easy ones. Medians of the repetitions; the worst delays are those of all.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

from benchmarks import measure
from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Scorer

HOSTILE = ["9^{9^{9^9}}", "(10^7)!", "(x+y+z+w)^{400}", "9^{9^{9^8}}", "(10^8)!", "(x+y+z+w)^{500}"]
_FRESH = itertools.count()


def scorer(verifier: str, timeout_s: float = 10.0) -> Scorer:
    """A scorer with one accuracy reward, its processes started."""
    made = Scorer(
        [RewardConfig(name="accuracy", params={"verifier": verifier})], RewardWorkerConfig(timeout_s=timeout_s)
    )
    made.check()
    return made


def rate(judge: Scorer, samples: Sequence[Sample]) -> float:
    """Samples per second, all started at once; every one must be right."""
    began = time.perf_counter()
    pending = [judge.begin(sample) for sample in samples]
    scores = [p.result().score for p in pending]
    seconds = time.perf_counter() - began
    assert all(score.reward == 1.0 for score in scores), next(score for score in scores if score.reward != 1.0)
    return len(samples) / seconds


def plain(n: int) -> Sample:
    """A chain of thought and a number."""
    return Sample(response=f"<think>{n} it is, I think.</think> <answer> {n:,} </answer>", answer=str(n))


def symbolic(n: int) -> Sample:
    """An expression that only the algebra system can compare; new each time, because its library caches."""
    fresh = next(_FRESH)
    return Sample(response=f"\\boxed{{\\frac{{x+{fresh}}}{{2}}}}", answer=f"\\frac{{x}}{{2}}+\\frac{{{fresh}}}{{2}}")


def program(n: int) -> Sample:
    """A short program with one test."""
    return Sample(response=f"```python\nprint(int(input()) + {n})\n```", answer=[{"stdin": "1", "stdout": str(n + 1)}])


def function(n: int) -> Sample:
    """A function with three asserts: two sandboxes."""
    asserts = [f"assert f({i}) == {i + n}" for i in range(3)]
    return Sample(response=f"```python\ndef f(x): return x + {n}\n```", answer={"asserts": asserts})


def easy_ms(judge: Scorer) -> list[float]:
    """Milliseconds for each of several symbolic answers, one after the other."""
    times = []
    for _ in range(15):
        n = next(_FRESH)
        began = time.perf_counter()
        assert judge.begin(Sample(response=f"\\boxed{{x+{n}}}", answer=f"{n}+x")).result().score.reward == 1.0
        times.append(1000 * (time.perf_counter() - began))
    return times


def delays() -> dict[str, float]:
    """Milliseconds of easy answers alone and beside hostile ones, and of the slowest plain answer beside them."""
    judge = scorer("math", timeout_s=5.0)
    easy_ms(judge)
    alone = easy_ms(judge)
    for text in HOSTILE:
        judge.begin(Sample(response=f"\\boxed{{{text}}}", answer="7"))
    beside = easy_ms(judge)
    worst = 0.0
    for n in range(1000):
        began = time.perf_counter()
        judge.begin(plain(n)).result()
        worst = max(worst, 1000 * (time.perf_counter() - began))
    judge.close()
    return {
        "easy_alone_ms": statistics.median(alone),
        "easy_beside_hostile_ms": statistics.median(beside),
        "easy_beside_hostile_worst_ms": max(beside),
        "plain_beside_hostile_worst_ms": worst,
    }


def one_round() -> dict[str, float]:
    """Everything once, with processes of its own."""
    maths, code = scorer("math"), scorer("code")
    rate(maths, [symbolic(i) for i in range(50)])
    rate(code, [program(i) for i in range(8)])
    rates = {
        "plain_per_s": rate(maths, [plain(i) for i in range(20_000)]),
        "symbolic_per_s": rate(maths, [symbolic(i) for i in range(400)]),
        "programs_per_s": rate(code, [program(i) for i in range(200)]),
        "function_tests_per_s": rate(code, [function(i) for i in range(60)]),
    }
    maths.close()
    code.close()
    return {**rates, **delays()}


def main() -> None:
    """Measure, print, and store the result with --write."""
    session = measure.start("verifiers", measure.parser(__doc__, repeats=1).parse_args())
    rounds = [one_round() for _ in range(session.repeats)]
    result = {}
    for key in rounds[0]:
        values = [found[key] for found in rounds]
        result[key] = round(max(values) if "worst" in key else statistics.median(values), 1)
    print(measure.table(("figure", "value"), list(result.items())))
    session.finish({"repeats": session.repeats, **result}, {})


if __name__ == "__main__":
    main()
