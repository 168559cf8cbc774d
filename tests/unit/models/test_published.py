"""Sizes of published models: their parameters are the sums of their matrices."""

from __future__ import annotations

import pytest

from r1ray.models.published import PUBLISHED, published_shape


@pytest.mark.parametrize("name", [n for n, shape in PUBLISHED.items() if not shape.routed])
def test_the_parameters_of_a_dense_model_are_the_sum_of_its_matrices(name: str) -> None:
    shape = PUBLISHED[name]
    attention = 2 * shape.hidden**2 + 2 * shape.hidden * shape.key_value
    biases = shape.hidden + 2 * shape.key_value if name.startswith("qwen2.5") else 0
    layer = attention + biases + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    embedding = shape.vocabulary * shape.hidden
    assert shape.parameters == embedding + shape.output + shape.layers * layer + shape.hidden


@pytest.mark.parametrize(("name", "active"), [("qwen3-30b-a3b", 3.35e9), ("deepseek-v3", 37.6e9)])
def test_a_token_uses_a_share_of_the_experts(name: str, active: float) -> None:
    assert PUBLISHED[name].active == pytest.approx(active, rel=0.01)


def test_a_compressed_cache_is_smaller_than_keys_and_values() -> None:
    assert (PUBLISHED["deepseek-v3"].cached, PUBLISHED["qwen2.5-7b"].cached) == (576, 1024)


def test_the_name_of_the_folder_says_which_model_it_is() -> None:
    assert published_shape("models/Llama-3.3-70B-Instruct") is PUBLISHED["llama-3.3-70b"]
    assert published_shape("models/DeepSeek-V3-Base") is PUBLISHED["deepseek-v3"]
    assert published_shape("models/mine") is None
