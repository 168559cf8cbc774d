"""Learner ranks that all send what they hold: after training steps a receiver has the learner's weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.learner_support import LORA, make_model, make_rank, remake, run_ranks
from tests.integration.models import random_experts, write_model
from tests.integration.test_learner_rank import train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ALL = {"sync__senders": "all", "sync__bucket_bytes": 4096, "sync__digest": "wire", "sync__bucket_deadline_s": 20.0}
STAGE_3 = {**ALL, "learner__zero_stage": 3}


def published(rank: int, world_size: int, port: int, cases: list[tuple[str, dict[str, Any], int]]) -> Any:
    """For each case, after each of two syncs of one group: whether rank 0's receiver has this learner's weights."""
    import torch
    from torch import distributed

    from actors.staging import WeightReceiver
    from r1ray.transport.plan import transfer_plan
    from r1ray.transport.rendezvous import join
    from r1ray.transport.transfer import WeightLayout, together

    learner = make_rank(rank, world_size, port, cases[0][0], cases[0][1])
    answers = []
    for model, changes, steps in cases:
        remake(learner, model, changes)
        shares: list[Any] = [None] * world_size
        distributed.all_gather_object(shares, learner.weight_shares())
        opened = [learner.open_epoch(1, 1) if rank == 0 else None]
        distributed.broadcast_object_list(opened)
        layout = WeightLayout(weights=learner.weight_specs(), shares=shares)
        receiver = WeightReceiver(torch.device("cpu"))
        receiver.enter(lambda device, group=opened[0]: join(group, rank=1, host="127.0.0.1"))
        answer: dict[str, Any] = {"weights": sum(t.nbytes for _, t in learner.named_weights()), "syncs": []}
        for group in (opened[0], None):
            train(learner, *range(learner.policy_version, learner.policy_version + steps))
            if rank == 0:
                plan = transfer_plan(layout, changes["sync__bucket_bytes"])
                receiver.begin(plan, digest=True, delta=changes.get("sync__encoding") == "delta")
            sent: list[Any] = [None] * world_size
            distributed.all_gather_object(sent, learner.publish(learner.policy_version, group))
            whole = {name: tensor.clone() for name, tensor in learner.named_weights()}
            if rank == 0:
                assert receiver._thread is not None
                receiver._thread.join(30.0)
                received, found = receiver.received(), receiver.tensors()
                assert received is not None
                different = [name for name in whole if not torch.equal(whole[name], found[name])]
                answer["syncs"].append(
                    {
                        "different": different,
                        "unknown": sorted(found.keys() - whole.keys()),
                        "digest": received.digest == together(sent).digest,
                        "bytes": [s.wire_bytes for s in sent],
                    }
                )
                receiver.release()
        answers.append(answer)
    learner.close()
    return answers


def test_a_receiver_gets_the_learners_weights_from_the_ranks_that_hold_them(tmp_path: Path) -> None:
    qwen2 = str(make_model(tmp_path / "qwen2"))
    experts = str(write_model(random_experts("qwen3_moe", 0), tmp_path / "experts"))  # its experts are converted
    cases: dict[str, tuple[str, dict[str, Any], int]] = {
        "ZeRO 0": (qwen2, ALL, 1),
        "ZeRO 3": (qwen2, STAGE_3, 1),
        "ZeRO 3, delta": (qwen2, {**STAGE_3, "sync__encoding": "delta", "learner__optimizer__lr": 1e-7}, 1),
        "ZeRO 3, bfloat16": (qwen2, {**STAGE_3, "model__dtype": "bfloat16"}, 1),
        "ZeRO 3, adapters": (qwen2, {**STAGE_3, **LORA}, 1),
        "ZeRO 3, experts": (experts, STAGE_3, 0),
    }
    answers = run_ranks(partial(published, cases=list(cases.values())), 2)[0]
    for (name, (_, changes, _)), answer in zip(cases.items(), answers, strict=True):
        first, second = answer["syncs"]
        print(f"\n{name}: {first['bytes']}, then {second['bytes']} of {answer['weights']} bytes")
        for sync in (first, second):
            assert (sync["different"], sync["unknown"], sync["digest"]) == ([], [], True), name
        if "sync__encoding" not in changes:
            assert sum(first["bytes"]) == sum(second["bytes"]) == answer["weights"], name
            assert max(first["bytes"]) < 0.7 * answer["weights"], name
