"""Memory of a learner rank: activations and adapters, exact numbers by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from r1ray.models.folder import read_shape
from r1ray.preflight.memory import trained_parameters
from r1ray.preflight.placement import make_plan
from r1ray.preflight.volumes import checkpoint_bytes
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


def test_a_rank_needs_room_for_its_own_experts_and_for_a_layers_on_the_way_out() -> None:
    """Half of 600k parameters are experts of the other ranks; ZeRO divides the optimiser over all four."""
    shape = replace(SMALL, parameters=1_000_000, routed=600_000, experts=50_000)
    host = {
        stage: make_plan(
            tiny("learner.ranks=4", "learner.expert_parallel=2", f"learner.zero_stage={stage}"), shape, LAPTOP
        )
        .role("learner rank")
        .host
        for stage in (0, 1)
    }
    assert {h["weights"] for h in host.values()} == {4 * 700_000}
    assert [host[stage]["optimizer"] for stage in (0, 1)] == [8 * 700_000, 12 * 1_000_000 / 4]
    assert [host[stage]["gradients"] for stage in (0, 1)] == [4 * 700_000, 2 * 4 * 700_000]
    assert {h["gathered experts"] for h in host.values()} == {2 * 4 * 50_000}


def test_adapters_need_gradients_and_moments_of_their_own_only_and_no_copy_as_a_reference() -> None:
    """Rank 4: q and o have 2 x 128 inputs and outputs, k and v too, feed-forward layers 128 + 384."""
    given = ("algorithm.kl_coefficient=0.1", "learner.zero_stage=2", "learner.ranks=2")
    adapters = 4 * SMALL.layers * (4 * 256 + 3 * 512)
    plan = make_plan(tiny("model.lora.rank=4", *given), SMALL, LAPTOP)
    host = plan.role("learner rank").host
    assert host["optimizer"] == 12 * adapters / 2
    assert host["weights"] == 4 * (SMALL.parameters + adapters)
    assert host["gradients"] == 4 * adapters / 2 + 4 * adapters
    assert host["merged weight"] == 4 * SMALL.largest
    assert not {"reference", "output gradient"} & host.keys()
    whole = make_plan(tiny(*given), SMALL, LAPTOP).role("learner rank").host
    assert {"reference", "output gradient"} <= whole.keys()

    config = tiny("model.lora.rank=4", "model.lora.targets=[v_proj, mlp.gate_proj, wo]")
    assert trained_parameters(config, SMALL) == 4 * SMALL.layers * (256 + 512 + 512)
    assert checkpoint_bytes(config, SMALL) == 12 * trained_parameters(config, SMALL)
