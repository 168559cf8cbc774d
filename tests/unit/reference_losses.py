"""Every formula of the learner once more: plain Python loops in float64, written from the papers, slow and independent.

Nothing here is imported by the product. Sequences are lists of lists: one inner list of per-token numbers a sequence.
"""

from __future__ import annotations

import math

Rows = list[list[float]]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def std(values: list[float]) -> float:
    return math.sqrt(sum((v - mean(values)) ** 2 for v in values) / len(values))


# -- advantages -----------------------------------------------------------------------------------------------------


def group_norm(groups: Rows) -> Rows:
    return [[(r - mean(g)) / std(g) if std(g) > 1e-6 else 0.0 for r in g] for g in groups]


def mean_only(groups: Rows) -> Rows:
    return [[r - mean(g) for r in g] for g in groups]


def leave_one_out(groups: Rows) -> Rows:
    answer = []
    for g in groups:
        row = []
        for i, r in enumerate(g):
            others = [x for j, x in enumerate(g) if j != i]
            row.append(r - mean(others))
        answer.append(row)
    return answer


def reinforce_pp(groups: Rows) -> Rows:
    everything = [r for g in groups for r in g]
    spread = std(everything)
    return [[(r - mean(everything)) / spread if spread > 1e-6 else 0.0 for r in g] for g in groups]


def overlong(length: int, longest: int, buffer: int, penalty: float) -> float:
    if length <= longest - buffer:
        return 0.0
    if length <= longest:
        return penalty * ((longest - buffer) - length) / buffer
    return -penalty


# -- losses: value of every token of every sequence -----------------------------------------------------------------


def clip(value: float, low: float, high: float) -> float:
    return max(1.0 - low, min(1.0 + high, value))


def grpo(new: Rows, old: Rows, advantages: list[float], low: float, high: float) -> Rows:
    answer = []
    for n_row, o_row, a in zip(new, old, advantages, strict=True):
        row = []
        for n, o in zip(n_row, o_row, strict=True):
            ratio = math.exp(n) / math.exp(o)
            row.append(-min(ratio * a, clip(ratio, low, high) * a))
        answer.append(row)
    return answer


def gspo(new: Rows, old: Rows, advantages: list[float], low: float, high: float) -> Rows:
    answer = []
    for n_row, o_row, a in zip(new, old, advantages, strict=True):
        ratio = math.prod(math.exp(n - o) for n, o in zip(n_row, o_row, strict=True)) ** (1.0 / len(n_row))
        answer.append([-min(ratio * a, clip(ratio, low, high) * a)] * len(n_row))
    return answer


def cispo(new: Rows, old: Rows, advantages: list[float], low: float, high: float) -> Rows:
    answer = []
    for n_row, o_row, a in zip(new, old, advantages, strict=True):
        answer.append([-clip(math.exp(n - o), low, high) * a * n for n, o in zip(n_row, o_row, strict=True)])
    return answer


LOSSES = {"grpo": grpo, "dr_grpo": grpo, "dapo": grpo, "gspo": gspo, "cispo": cispo}


def k3(new: float, reference: float) -> float:
    ratio = math.exp(reference) / math.exp(new)
    return ratio - math.log(ratio) - 1.0


def truncated(proximal: float, behavior: float, cap: float) -> float:
    return min(math.exp(proximal) / math.exp(behavior), cap)


def masked(proximal: float, behavior: float, cap: float) -> float:
    weight = math.exp(proximal) / math.exp(behavior)
    return weight if 1.0 / cap <= weight <= cap else 0.0


# -- aggregation ----------------------------------------------------------------------------------------------------


def aggregate(values: Rows, how: str, trained: list[bool], max_new_tokens: int) -> float:
    rows = [row for row, keep in zip(values, trained, strict=True) if keep]
    if how == "token":
        return sum(v for row in rows for v in row) / sum(len(row) for row in rows)
    if how == "sequence":
        return mean([mean(row) for row in rows])
    assert how == "constant"
    return sum(sum(row) for row in rows) / (len(rows) * max_new_tokens)
