"""Activations of a learner rank: exact numbers by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from r1ray.models.folder import read_shape
from r1ray.preflight.placement import make_plan
from tests.unit.model_folder import write_model
from tests.unit.preflight.test_placement import LAPTOP, SMALL, tiny


def test_activation_checkpointing_keeps_the_inputs_of_the_layers_and_one_layer() -> None:
    plain = make_plan(tiny(), SMALL, LAPTOP).role("learner rank").host["activations"]
    saved = (
        make_plan(tiny("model.activation_checkpointing=true"), SMALL, LAPTOP).role("learner rank").host["activations"]
    )
    layer = 8 * 128 + 2 * 128 + 4 * 384
    assert plain == 4096 * 3 * layer * 4
    assert saved == 4096 * (3 * 128 + layer) * 4


def test_known_layers_keep_half_of_the_hidden_and_intermediate_vectors_and_one_layer_whole() -> None:
    """tests/unit/learner/test_recompute.py counts what a model really stores."""
    shape = replace(SMALL, recomputes=True)
    layer, stored = 8 * 128 + 2 * 128 + 4 * 384, 4 * 128 + 2 * 128 + 2 * 384
    activations = make_plan(tiny(), shape, LAPTOP).role("learner rank").host["activations"]
    assert activations == 4096 * (3 * stored + layer) * 4


def test_a_sequence_group_keeps_attentions_output_twice_and_copies_of_key_value_heads() -> None:
    """Six ranks and four key-value heads: three copies of each, two heads a rank."""
    shape = replace(SMALL, recomputes=True, heads=12)
    stored = 4 * 128 + 2 * 128 + 2 * 384
    grown = 128 + 2 * 2 * 128
    alone, together = (
        make_plan(tiny(f"learner.sequence_parallel={n}", f"learner.ranks={n}"), shape, LAPTOP) for n in (1, 6)
    )
    activations = [plan.role("learner rank").host["activations"] for plan in (alone, together)]
    assert activations[0] == 4096 * (3 * stored + 8 * 128 + 2 * 128 + 4 * 384) * 4
    assert activations[1] - activations[0] == 4096 * (3 + 1) * grown * 4


def test_silu_and_rmsnorm_without_experts_are_known_layers(tmp_path: Path) -> None:
    llama = {"hidden_act": "silu", "rms_norm_eps": 1e-6}
    assert read_shape(write_model(tmp_path / "llama", **llama)).recomputes
    assert not read_shape(write_model(tmp_path / "gelu", **{**llama, "hidden_act": "gelu"})).recomputes
    assert not read_shape(write_model(tmp_path / "layer_norm", hidden_act="silu")).recomputes
    assert not read_shape(write_model(tmp_path / "experts", **llama, num_experts=4)).recomputes
