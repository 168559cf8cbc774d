"""Warnings of a reload: of layers to which nothing is sent they are dropped, of others they stay."""

from __future__ import annotations

import logging

import pytest
import torch

from actors.reload_log import LOGGER, silence_unsent


class Table(torch.nn.Module):
    """A layer with a buffer and no parameters, as rotary embeddings are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cos", torch.ones(2))


class Head(torch.nn.Linear):
    """An output layer."""


@pytest.mark.parametrize(("tied", "left"), [("Head", ["Linear"]), (None, ["Head", "Linear"])])
def test_only_layers_that_should_have_got_weights_are_warned_of(
    tied: str | None, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Sequential(Table(), Head(2, 2), torch.nn.Linear(2, 2))
    silence_unsent(model, "Other")
    silence_unsent(model, tied)  # a later group's counts
    logger = logging.getLogger(LOGGER)
    for layer in ("Table", "Head", "Linear"):
        logger.warning("%s: Failed to load weights", layer)
    logger.warning("Table: something else")
    assert caplog.messages == [*(f"{layer}: Failed to load weights" for layer in left), "Table: something else"]
