"""Rates: what binds a step, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from r1ray.config.load import load_config
from r1ray.models.published import PUBLISHED
from r1ray.planning.balance import best_split, sides
from r1ray.planning.rates import Efficiency, Rates
from r1ray.planning.scenario import Scenario
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.memory import trained_parameters

IDEAL = Efficiency(
    training_share=1.0,
    decode_share=1.0,
    compute_share=1.0,
    engine_step_s=0.0,
    learner_step_s=0.0,
    sync_s=0.0,
    start_s=0.0,
)
SCENARIO = Scenario(mean_tokens=1000.0)


def rates(*overrides: str, model: str = "qwen2.5-7b") -> Rates:
    shape = PUBLISHED["llama-3.1-70b" if model == "llama-70b" else model]
    return Rates(config=load_config([f"models/{model}"], overrides).config, shape=shape, efficiency=IDEAL)


def test_a_single_sequence_reads_the_weights_once_per_token() -> None:
    assert rates().engine_step_s(1, 0.0) == pytest.approx(2 * 7_615_616_512 / 2039e9)


def test_many_sequences_read_a_cache_each() -> None:
    per_token = 28 * 1024 * 2
    grown = rates().engine_step_s(100, 4000.0) - rates().engine_step_s(100, 0.0)
    assert grown == pytest.approx(100 * 4000 * per_token / 2039e9)


def test_tensor_parallel_parts_share_the_reading() -> None:
    whole, half = (rates(f"rollout.engine.tensor_parallel_size={n}", "sync.digest=wire") for n in (1, 2))
    assert whole.engine_step_s(8, 100.0) == pytest.approx(2 * half.engine_step_s(8, 100.0))


def test_a_token_of_experts_reads_those_that_some_sequence_chose() -> None:
    mixture = replace(rates(), shape=PUBLISHED["qwen3-30b-a3b"])
    one, many = mixture.engine_step_s(1, 0.0), mixture.engine_step_s(512, 0.0)
    assert one == pytest.approx(2 * mixture.shape.active / 2039e9)
    assert many == pytest.approx(2 * mixture.shape.parameters / 2039e9, rel=0.01)


def test_training_takes_six_operations_a_parameter_and_more_for_what_is_recomputed_or_scored() -> None:
    plain = rates(
        "model.activation_checkpointing=false", "algorithm.kl_coefficient=0", "algorithm.reference_refresh_steps=null"
    )
    operations = 80_000 / 8 * 6 * 7_615_616_512
    assert plain.training_s(80_000, 0.0) == pytest.approx(operations / 312e12)
    assert rates().training_s(80_000, 0.0) == pytest.approx(operations / 312e12 * 5 / 3)  # recomputed, reference


def test_adapters_save_the_gradients_of_frozen_weights_in_computing_and_between_hosts() -> None:
    given = ("algorithm.kl_coefficient=0", "algorithm.reference_refresh_steps=null", "model.lora.rank=16")
    plain = rates(*given, "model.activation_checkpointing=false")
    layer = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)  # inputs + outputs of the seven targets
    trained = 16 * 28 * layer
    operations = 80_000 / 8 * (4 * 7_615_616_512 + 6 * trained)
    assert plain.training_s(80_000, 0.0) == pytest.approx(operations / 312e12)
    recomputed = 80_000 / 8 * (6 * 7_615_616_512 + 8 * trained)
    assert rates(*given).training_s(80_000, 0.0) == pytest.approx(recomputed / 312e12)
    sharded = rates(*given, model="llama-70b")
    all_weights, adapters = 2 * sharded.shape.parameters, 2 * trained_parameters(sharded.config, sharded.shape)
    gathered = sharded.config.learner.minibatches * (2 * all_weights + adapters) / 400e9
    assert sharded.training_s(64.0, 0.0) == pytest.approx(gathered)


def test_ranks_that_compute_rows_together_exchange_tokens_for_heads_in_every_pass() -> None:
    """8 ranks in groups of 2 or of 8, twice as many as key-value heads: half, and 7/8, of q, k, v and the output."""
    given = ("algorithm.kl_coefficient=0", "algorithm.reference_refresh_steps=null")
    alone, two, eight = (rates(f"learner.sequence_parallel={n}", *given).training_s(80_000, 0.0) for n in (1, 2, 8))
    link = ACCELERATORS["a100-80"].link_gb_s / 2 * 1e9
    assert rates().config.hardware.gpu == "a100-80"
    per_pass = 10_000 * 28 * 2 / link  # tokens of a rank, layers, bytes
    assert two - alone == pytest.approx(4 * per_pass * (2 * 3584 + 2 * 512) / 2)
    assert eight - alone == pytest.approx(4 * per_pass * (2 * 3584 + 4 * 512) * 7 / 8)


def test_few_tokens_at_zero_3_wait_for_the_weights_of_other_hosts() -> None:
    large = rates(model="llama-70b")
    gathered = 3 * large.config.learner.minibatches * 2 * large.shape.parameters / 400e9
    assert large.training_s(64.0, 0.0) == pytest.approx(gathered)


def test_a_cache_bounds_the_sequences_of_an_engine() -> None:
    assert rates("rollout.engine.kv_cache_gib=1").slots(1000.0) == int(2**30 / (28 * 1024 * 2) / 1000)
    assert rates().slots(100.0) == 256


def test_the_best_split_uses_all_gpus_and_no_side_is_much_faster() -> None:
    large = rates("hardware.nodes=64", model="llama-70b")
    best = best_split(large, SCENARIO)
    assert best is not None
    assert best.ranks + 8 * best.workers == 512
    given = sides(large, SCENARIO)
    assert min(best.generated_s, best.trained_s) >= min(given.generated_s, given.trained_s)


def test_no_split_if_no_number_of_ranks_fits() -> None:
    assert best_split(rates("hardware.gpu=l40s-48", "hardware.nodes=16", model="llama-70b"), SCENARIO) is None
