"""What the vLLM engine does to a completion before it hands it on, without vLLM."""

from __future__ import annotations

import pickle

import pytest

from actors.engine import engine_prompt, engine_refused, stop_token_ids, without_end_token
from r1ray.errors import EngineRefused
from r1ray.util.formatting import one_line


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([5, 6, 9], [5, 6]),
        ([5, 6, 8], [5, 6]),
        ([9, 9], [9]),  # only the one that ended the completion
        ([9, 5], [9, 5]),  # an end id elsewhere belongs to the text
        ([5, 6], [5, 6]),
        ([], []),
    ],
)
def test_the_end_token_is_recognised_by_its_id(token_ids, expected):
    assert without_end_token(token_ids, {8, 9, None}) == expected


def test_a_tokenizer_without_an_end_token_removes_nothing():
    assert without_end_token([5, 6], {None}) == [5, 6]


@pytest.mark.parametrize(
    ("content", "expected"), [('{"eos_token_id": 7}', [7]), ('{"eos_token_id": [7, 8]}', [7, 8]), ("{}", [])]
)
def test_stop_tokens_of_a_model_folder(tmp_path, content, expected):
    (tmp_path / "generation_config.json").write_text(content)
    assert stop_token_ids(str(tmp_path)) == expected


def test_a_folder_without_a_generation_config_names_no_stop_token(tmp_path):
    assert stop_token_ids(str(tmp_path)) == []


def test_prompts_of_different_policies_share_no_blocks_if_the_cache_outlives_a_sync():
    assert engine_prompt((1, 2), None) == {"prompt_token_ids": [1, 2]}
    salts = [engine_prompt((1, 2), f"policy {version}")["cache_salt"] for version in (3, 4)]
    assert salts == ["policy 3", "policy 4"]


class HoldsItsArguments(ValueError):
    """As pydantic's ValidationError: it cannot be pickled, and ends with a link."""

    def __init__(self) -> None:
        super().__init__(
            "1 validation error for VllmConfig\n  Value error, Cannot find the config file for gptq "
            "[type=value_error]\n"
            "    For further information visit https://errors.example/v/value_error"
        )
        self.held = lambda: None

    def __reduce__(self):
        raise TypeError("cannot pickle the arguments")


def test_an_error_of_vllm_travels_to_the_driver_as_text():
    refused = pickle.loads(pickle.dumps(engine_refused(HoldsItsArguments())))
    assert isinstance(refused, EngineRefused)
    assert one_line(str(refused)) == (
        "HoldsItsArguments: 1 validation error for VllmConfig Value error, Cannot find the config file for gptq "
        "[type=value_error]"
    )
    assert str(engine_refused(KeyError())) == "KeyError: "
