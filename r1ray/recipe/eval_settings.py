"""How a policy is asked in its evaluation: as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1ray.config.schema import Config

FORMS = {"r1_zero": "r1_zero", "r1": "think"}
"""Template -> the form of the responses that it asks for. Of others a recipe says itself what is measured, under `rewards`."""


def eval_overrides_for(model: str, trained: Mapping[str, Config]) -> dict[str, Any]:
    """Keys of the evaluation of `model`, a reference: the frame of the prompts, and what is measured besides the accuracy.

    `trained`: the configurations of the policies, by stage. A model from outside is asked as the first policy made of it.
    """
    config = trained.get(model[1:]) or next((c for c in trained.values() if c.model.path == model), None)
    if config is None:
        return {}
    keys: dict[str, Any] = {"data": {"template": config.data.template, "system_prompt": config.data.system_prompt}}
    if (style := FORMS.get(config.data.template)) is not None:
        keys["rewards"] = [{"name": "format", "params": {"style": style}}, {"name": "language"}]
    return keys
