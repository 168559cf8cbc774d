"""Losses and advantages of the user's: loaded by import path, and refused by name if they break their contract."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.advantages import ADVANTAGES
from learner.losses import LOSSES, LossInput
from learner.plugins import load_advantage, load_policy_loss
from r1ray.config.load import load_config
from r1ray.errors import ConfigError

ADVANTAGES_OF_A_USER = """
import numpy as np

def half(rewards_G): return (rewards_G - rewards_G.mean()) / 2
def as_list(rewards_G): return [0.0 for _ in rewards_G]
def changes_its_input(rewards_G):
    rewards_G -= rewards_G.mean()
    return rewards_G
def two_arguments(rewards_G, beta): return rewards_G
def scalar(rewards_G): return rewards_G.mean()
def one_too_many(rewards_G): return np.append(rewards_G, 0.0)
def divides_by_zero(rewards_G):
    with np.errstate(all="ignore"):
        return (rewards_G - rewards_G.mean()) / (rewards_G.std() * (rewards_G.max() > rewards_G.min()))
def text(rewards_G): return ["good"] * len(rewards_G)
def fails(rewards_G): return rewards_G.median()
def long_groups_fail(rewards_G): return rewards_G if len(rewards_G) < 8 else rewards_G[:8]
number = 3
"""

LOSSES_OF_A_USER = """
from learner.losses import LossInput, TokenLoss

def answer(x, loss_T=None, ratio_T=None, clipped_T=None):
    ratio = (x.logprobs_T - x.old_logprobs_T).exp()
    return TokenLoss(
        loss_T=-ratio * x.advantages_T if loss_T is None else loss_T,
        ratio_T=ratio.detach() if ratio_T is None else ratio_T,
        clipped_T=ratio.detach() > 9 if clipped_T is None else clipped_T,
    )

def plain(x): return answer(x)
def no_arguments(): return None
def tensor(x): return x.logprobs_T
def summed(x): return answer(x, loss_T=-x.logprobs_T.sum())
def by_sequence(x): return answer(x, ratio_T=x.lengths_S)
def counted(x): return answer(x, clipped_T=0.5)
def without_gradient(x): return answer(x, loss_T=x.logprobs_T.detach())
def ratio_with_gradient(x): return answer(x, ratio_T=x.logprobs_T.exp())
def misspelled(x): return x.logprob_T
"""


@pytest.fixture(autouse=True)
def user_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_advantages.py").write_text(ADVANTAGES_OF_A_USER)
    (tmp_path / "users_losses.py").write_text(LOSSES_OF_A_USER)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def loss_input(tokens: int) -> LossInput:
    return LossInput(
        logprobs_T=torch.linspace(-2.0, -1.0, tokens, requires_grad=True),
        old_logprobs_T=torch.linspace(-2.0, -1.5, tokens),
        advantages_T=torch.ones(tokens),
        segment_T=torch.zeros(tokens, dtype=torch.int64),
        lengths_S=torch.tensor([float(tokens)]),
        clip_low=0.2,
        clip_high=0.2,
    )


# -- advantages -----------------------------------------------------------------------------------------------------


def test_a_users_advantage_gets_the_rewards_of_one_group_after_the_other() -> None:
    groups = [np.array([1.0, 0.0]), np.array([0.0, 0.0, 3.0])]
    found = load_advantage("users_advantages:half")(groups)
    assert [row.tolist() for row in found] == [[0.25, -0.25], [-0.5, -0.5, 1.0]]
    assert [row.tolist() for row in load_advantage("users_advantages:as_list")(groups)] == [[0.0] * 2, [0.0] * 3]


def test_built_in_names_stay_what_they_are() -> None:
    assert all(load_advantage(name) is ADVANTAGES[name] for name in ADVANTAGES)
    assert all(load_policy_loss(name) is LOSSES[name] for name in LOSSES)


def test_a_users_advantage_cannot_change_the_rewards() -> None:
    rewards = np.array([1.0, 0.0])
    load_advantage("users_advantages:changes_its_input")([rewards])
    assert rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_arguments", "expected the signature .rewards_G., got .rewards_G, beta.*'beta'"),
        ("scalar", r"expected the shape \(4,\), as the rewards have, got \(\)"),
        ("one_too_many", r"expected the shape \(4,\), as the rewards have, got \(5,\)"),
        ("divides_by_zero", "expected finite numbers, got .nan"),
        ("text", "expected an array of 4 numbers, got .'good'"),
        ("fails", "failed on an example: AttributeError: .*median"),
        ("number", "expected a function, got 3"),
        ("absent", "cannot be imported: AttributeError"),
    ],
)
def test_an_advantage_that_breaks_its_contract_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"algorithm.advantage users_advantages:{name}.*{message}"):
        load_advantage(f"users_advantages:{name}")


def test_the_shape_of_advantages_is_checked_at_every_call() -> None:
    advantage = load_advantage("users_advantages:long_groups_fail")
    with pytest.raises(ConfigError, match=r"long_groups_fail: expected the shape \(9,\)"):
        advantage([np.arange(9.0)])


# -- losses ---------------------------------------------------------------------------------------------------------


def test_a_users_loss_gives_its_own_gradient() -> None:
    x = loss_input(5)
    load_policy_loss("users_losses:plain")(x).loss_T.sum().backward()  # type: ignore[no-untyped-call]
    expected = -(x.logprobs_T - x.old_logprobs_T).exp().detach()
    torch.testing.assert_close(x.logprobs_T.grad, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_arguments", "expected the signature .x: LossInput., got .."),
        ("tensor", "expected a learner.losses.TokenLoss, got Tensor"),
        ("summed", r"expected loss_T of shape \(3,\), as x.logprobs_T has, got \(\)"),
        ("by_sequence", r"expected ratio_T of shape \(3,\), as x.logprobs_T has, got \(2,\)"),
        ("counted", r"expected clipped_T of shape \(3,\), as x.logprobs_T has, got float"),
        ("without_gradient", "loss_T does not depend on x.logprobs_T"),
        ("ratio_with_gradient", "ratio_T is a metric and must not carry a gradient"),
        ("misspelled", "failed on an example: AttributeError: .*logprob_T"),
    ],
)
def test_a_loss_that_breaks_its_contract_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"algorithm.loss users_losses:{name}.*{message}"):
        load_policy_loss(f"users_losses:{name}")


@pytest.mark.parametrize("field", ["old_logprobs_T", "advantages_T", "segment_T", "lengths_S"])
def test_a_loss_input_refuses_shapes_that_do_not_agree(field: str) -> None:
    x = loss_input(5)
    fields = {name: getattr(x, name) for name in LossInput.__dataclass_fields__}
    with pytest.raises(ValueError, match=f"{field}: expected"):
        LossInput(**{**fields, field: torch.zeros(2, 2)})


# -- configuration --------------------------------------------------------------------------------------------------


def test_the_configuration_takes_an_import_path_for_both() -> None:
    items = ["algorithm.loss=users_losses:plain", "algorithm.advantage=users_advantages:half"]
    algorithm = load_config(["tiny"], items).config.algorithm
    assert (algorithm.loss, algorithm.advantage) == ("users_losses:plain", "users_advantages:half")
    for key in ("loss", "advantage"):
        with pytest.raises(ConfigError, match=f"algorithm.{key}.*or module:function"):
            load_config(["tiny"], [f"algorithm.{key}=half"])
