"""What vLLM says about layers to which no weights are sent.

vLLM warns "Failed to load weights" of every layer that a reload leaves as it is: rotary embeddings, which have a table
but no parameters, and an output layer that is tied to the embedding. At every weight sync that would be two lines in
the log for each layer, about nothing. Of any other layer the warning stays.
"""

from __future__ import annotations

import logging

import torch

LOGGER = "vllm.model_executor.model_loader.reload.layerwise"


class Unsent(logging.Filter):
    """Drops the warning for layers of these classes."""

    def __init__(self, classes: frozenset[str]) -> None:
        super().__init__()
        self._classes = classes

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        about = record.args[0] if isinstance(record.args, tuple) and record.args else None
        return not (record.msg == "%s: Failed to load weights" and about in self._classes)


def silence_unsent(model: torch.nn.Module, tied_head: str | None) -> None:
    """Expect no weights for layers of `model` without parameters of their own, and for those of class `tied_head`."""
    unsent = {type(layer).__name__ for layer in model.modules() if next(layer.parameters(recurse=False), None) is None}
    if tied_head is not None:
        unsent.add(tied_head)
    logger = logging.getLogger(LOGGER)
    for earlier in [one for one in logger.filters if isinstance(one, Unsent)]:
        logger.removeFilter(earlier)
    logger.addFilter(Unsent(frozenset(unsent)))
