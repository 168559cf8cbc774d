"""Values and combinations that are refused, each by its key."""

from __future__ import annotations

import pytest

from r1ray.config.algorithm import LOSS_REQUIREMENTS
from r1ray.config.checks import ENGINE_KEYS, check
from r1ray.config.keys import Key, leaf_keys
from r1ray.config.load import load_config
from r1ray.config.problems import Problem, Provenance, refuse
from r1ray.config.schema import Config
from r1ray.errors import ConfigError

KEYS = dict(leaf_keys())


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(["tiny"], overrides)
    return str(caught.value)


def test_tables_name_keys_of_the_schema() -> None:
    named = [*ENGINE_KEYS.values(), *(key for keys in LOSS_REQUIREMENTS.values() for key in keys)]
    assert [key for key in named if key not in KEYS] == []
    assert [loss for loss in LOSS_REQUIREMENTS if loss not in KEYS["algorithm.loss"].choices] == []
    required = [(key, value) for keys in LOSS_REQUIREMENTS.values() for key, (value, _) in keys.items()]
    assert [(key, value) for key, value in required if not KEYS[key].allows(value)] == []


def test_the_defaults_lack_only_rewards_and_training_prompts() -> None:
    assert {p.key for p in check(Config())} == {"rewards", "data.train"}


@pytest.mark.parametrize("path", sorted(path for path, key in KEYS.items() if key.choices))
def test_a_value_outside_the_choices_is_refused_with_the_choices(path: str) -> None:
    message = refused(f"{path}=xyzzy")
    assert message.startswith(f"{path}: expected one of {', '.join(KEYS[path].choices)}")
    assert message.endswith(", got 'xyzzy' (command line)")


def outside(key: Key) -> list[float]:
    """Numbers just beyond the bounds of a key."""
    bounds = key.range
    assert bounds is not None
    beyond = [(bounds.ge, -1.0), (bounds.gt, 0.0), (bounds.le, 1.0), (bounds.lt, 0.0)]
    return [bound + step for bound, step in beyond if bound is not None]


def of_numbers(key: Key, number: float) -> str:
    """`number` as a value of the key: itself, or in a list or a map."""
    text = f"{number:g}" if isinstance(key.default, float) else f"{number:.0f}"
    return {dict: f"{{x: {text}}}", tuple: f"[0.5, {text}]"}.get(type(key.default), text)


RANGES = sorted(path for path, key in KEYS.items() if key.range is not None)


@pytest.mark.parametrize("path", RANGES)
def test_numbers_outside_their_range_are_refused(path: str) -> None:
    key = KEYS[path]
    for number in outside(key):
        message = refused(f"{path}={of_numbers(key, number)}")
        assert message.startswith(f"{path}: expected {key.expected}, got "), message
        assert str(key.range) in key.expected


@pytest.mark.parametrize("path", RANGES)
def test_bounds_that_are_inside_are_allowed(path: str) -> None:
    bounds = KEYS[path].range
    assert bounds is not None
    for number in (bounds.ge, bounds.le):
        assert number is None or KEYS[path].allows(number)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_that_are_not_finite_are_refused(value: str) -> None:
    assert "expected a number > 0, got" in refused(f"learner.optimizer.lr={value}")
    assert "expected a list of 2 numbers >= 0 and < 1" in refused(f"learner.optimizer.betas=[0.9, {value}]")


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        (["learner.optimizer.betas=[0.9, 1.0]"], "learner.optimizer.betas", "2 numbers >= 0 and < 1"),
        (["run.dir=' '"], "run.dir", "a string that is not empty"),
        (["rewards=[]"], "rewards", "a weight other than 0"),
        (["rewards.1.name=accuracy"], "rewards.1.name", "is the name of an earlier reward"),
        (["rewards.0.weight=0", "rewards.1.weight=0"], "rewards", "a weight other than 0"),
        (["rewards.0.weight=.inf"], "rewards.0.weight", "a finite number"),
        (["data.train=[]"], "data.train", "is empty"),
        (["data.train.0.kind=csv"], "data.train.0.kind", "one of synthetic"),
        (["data.train.0.path=null"], "data.train.0.path", "the name of a task"),
        (["data.train.0.weight=0"], "data.train.0.weight", "a number > 0"),
        (["data.train.0.limit=0"], "data.train.0.limit", "an integer >= 1 or null"),
        (["data.train.0.rewards=[speed]"], "data.train.0.rewards", "some of accuracy, format"),
        (["data.train.0.rewards=[]"], "data.train.0.rewards", "null for all"),
        (["data.decontaminate=true"], "data.decontaminate", "nothing to compare with"),
        (
            ["data.decontaminate_against=[{name: bus, path: bus}]"],
            "data.decontaminate_against.0.kind",
            "whose splits never overlap",
        ),
        (
            ["data.decontaminate_against=[{name: a, kind: jsonl}]"],
            "data.decontaminate_against.0.path",
            "a file, a folder or a hub id",
        ),
        (["data.evaluation.0.limit=null"], "data.evaluation.0.limit", "has no end"),
        (
            ["data.evaluation.0.name=bus", "data.evaluation.0.rewards=[format]"],
            "data.evaluation.0.name",
            "a training source",
        ),
        (["data.train.0.path=transpose", "data.train.0.params={}"], "data.train.0.path", "verifier `code`"),
        (["data.train.0.path=writing", "data.train.0.params={}"], "data.train.0.path", "verifier `instructions`"),
        (["data.evaluation.1.name=bus_4_7"], "data.evaluation.1.name", "is the name of an earlier source"),
        (["model.max_length=100"], "model.max_length", "at least 174"),
        (["evaluation.max_new_tokens=150"], "evaluation.max_new_tokens", "at most 128"),
        (["learner.micro_batch_tokens=100"], "learner.micro_batch_tokens", "at least 174"),
        (
            ["algorithm.overlong_buffer_tokens=110"],
            "algorithm.overlong_buffer_tokens",
            "less than rollout.max_new_tokens",
        ),
        (["learner.minibatches=5"], "learner.minibatches", "one of 1, 2, 4, 8, 16, 32"),
        (["rollout.group_size=1"], "rollout.group_size", "nothing to compare with"),
        (
            ["rollout.group_size=1", "algorithm.advantage=reinforce_pp", "algorithm.dynamic_sampling=true"],
            "rollout.group_size",
            "drop every group",
        ),
        (["run.deterministic=true"], "queue.max_staleness", "queue.max_staleness=0"),
        (["run.deterministic=true", "rollout.workers=2"], "rollout.workers", "rollout.workers=1"),
        (["run.deterministic=true", "reward_worker.workers=2"], "reward_worker.workers", "reward_worker.workers=1"),
        (["queue.lease_timeout_s=3"], "queue.lease_timeout_s", "at least reward_worker.timeout_s = 5"),
        (["deadlines.batch_s=100"], "deadlines.batch_s", "the lease of a worker that died"),
        (["sync.deadline_s=10"], "sync.deadline_s", "one bucket"),
        (["deadlines.step_s=100"], "deadlines.step_s", "one collective"),
        (["rollout.engine.tensor_parallel_size=2", "rollout.num_gpus=1"], "sync.digest", "wire"),
        (["rollout.top_p=0.9"], "rollout.top_p", "nucleus"),
        (
            ["rollout.top_p=0.9", "algorithm.importance=decoupled", "algorithm.importance_correction=truncated"],
            "rollout.top_p",
            "nucleus",
        ),
        (
            ["algorithm.importance_correction=truncated"],
            "algorithm.importance_correction",
            "needs proximal log-probabilities",
        ),
        (["algorithm.reference_refresh_steps=10"], "algorithm.reference_refresh_steps", "the run keeps none"),
        (["algorithm.loss=dr_grpo"], "algorithm.advantage", "standard deviation; use mean_only"),
        (["algorithm.loss=dr_grpo"], "algorithm.loss_aggregation", "divides by a constant; use constant"),
        (["algorithm.loss=dapo"], "algorithm.clip_high", "is not above algorithm.clip_low = 0.2"),
        (
            ["algorithm.loss=dapo", "algorithm.loss_aggregation=sequence"],
            "algorithm.loss_aggregation",
            "tokens; use token",
        ),
        (["algorithm.loss=gspo"], "algorithm.loss_aggregation", "each sequence; use sequence"),
        (
            ["algorithm.loss=gspo", "algorithm.importance=decoupled", "algorithm.importance_correction=masked"],
            "algorithm.importance_correction",
            "weights single tokens",
        ),
        (["learner.offload_parameters=true", "learner.num_gpus=1"], "learner.offload_parameters", "ZeRO 3"),
        (["learner.shared_prompts=true", "learner.num_gpus=1"], "learner.shared_prompts", "on a CPU only"),
        (["learner.offload_optimizer=true", "learner.num_gpus=1"], "learner.offload_optimizer", "ZeRO 1"),
        (["learner.offload_optimizer=true", "learner.zero_stage=1"], "learner.offload_optimizer", "num_gpus is 0"),
        (["learner.offload_parameters=true", "learner.zero_stage=3"], "learner.offload_parameters", "num_gpus is 0"),
        (["model.dtype=bfloat16"], "learner.zero_stage", "no float32 copy"),
        (["model.lora.rank=8", "model.lora.targets=[]"], "model.lora.targets", "nothing would be trained"),
        (
            ["model.lora.rank=8", "algorithm.kl_coefficient=0.1", "algorithm.reference_refresh_steps=5"],
            "algorithm.reference_refresh_steps",
            "use null, or model.lora.rank=null",
        ),
        (["learner.sequence_parallel=4", "learner.ranks=6"], "learner.sequence_parallel", "use 3, or learner.ranks=8"),
        (["learner.sequence_parallel=3"], "learner.sequence_parallel", "use 1, or learner.ranks=3"),
        (
            [
                "learner.sequence_parallel=2",
                "learner.ranks=2",
                "learner.num_gpus=1",
                "model.attention=flash_attention_2",
            ],
            "model.attention",
            "learner.sequence_parallel=1",
        ),
        (
            ["learner.sequence_parallel=2", "learner.ranks=2", "learner.micro_batch_tokens=86"],
            "learner.micro_batch_tokens",
            "in the 2 ranks of a sequence group; use at least 87",
        ),
        (
            ["algorithm.routing=compare", "rollout.num_gpus=1", "rollout.engine.prefix_caching=false"],
            "algorithm.routing",
            "use ignore, or rollout.engine.prefix_caching=true",
        ),
        (["learner.optimizer.warmup_steps=41"], "learner.optimizer.warmup_steps", "run.steps = 40"),
        (["model.attention=flash_attention_2"], "model.attention", "needs a GPU"),
        (["rollout.workers=6"], "rollout.max_workers", "at least 6"),
        (["rollout.autoscale.min=1"], "rollout.autoscale.max", "set both"),
        (["rollout.autoscale={min: 3, max: 2}"], "rollout.autoscale.min", "at most 2"),
        (["rollout.autoscale={min: 2, max: 4}"], "rollout.workers", "2 to 4 workers"),
        (["rollout.autoscale={min: 1, max: 9}"], "rollout.autoscale.max", "raise rollout.max_workers"),
        (["rollout.engine.tensor_parallel_size=2"], "rollout.engine.tensor_parallel_size", "whole GPUs"),
        (["rollout.engine.hosts=2"], "rollout.engine.hosts", "use one of 1"),
        (
            ["rollout.engine.tensor_parallel_size=8", "rollout.num_gpus=1", "rollout.engine.hosts=3"],
            "rollout.engine.hosts",
            "use one of 1, 2, 4, 8",
        ),
        (
            ["rollout.engine.tensor_parallel_size=16", "rollout.num_gpus=1", "rollout.engine.hosts=2"],
            "rollout.engine.hosts",
            "ray.address=auto",
        ),
        (
            ["rollout.engine.extra={quantization: fp8_per_block}"],
            "rollout.engine.extra.quantization",
            "no such engine has been compared with the learner",
        ),
        (["rollout.engine.kv_cache_gib=null"], "rollout.engine.kv_cache_gib", "e.g. 0.25"),
        (["rollout.engine.enforce_eager=false"], "rollout.engine.enforce_eager", "true"),
        (["rollout.engine.extra={max_num_seqs: 3}"], "rollout.engine.extra.max_num_seqs", "set rollout.engine.max_num"),
        (
            ["rollout.engine.extra={data_parallel_size: 2}"],
            "rollout.engine.extra.data_parallel_size",
            "set rollout.workers",
        ),
        (
            ["rollout.engine.extra={pipeline_parallel_size: 2}"],
            "rollout.engine.extra.pipeline_parallel_size",
            "set rollout.engine.tensor_parallel_size",
        ),
        (["sync.transport=nccl"], "sync.transport", "learner.num_gpus and rollout.num_gpus are 0"),
        (["sync.transport=ipc", "learner.num_gpus=0.5", "rollout.num_gpus=0.5"], "sync.transport", "max_workers=1"),
        (
            ["sync.transport=nccl", "learner.num_gpus=1", "rollout.num_gpus=0.5"],
            "rollout.num_gpus",
            "share a GPU, but NCCL",
        ),
        (
            ["sync.encoding=delta", "sync.transport=auto", "learner.num_gpus=1", "rollout.num_gpus=1"],
            "sync.encoding",
            "sync.transport is nccl",
        ),
        (
            ["sync.senders=all", "sync.transport=auto", "learner.num_gpus=1", "rollout.num_gpus=1"],
            "sync.senders",
            "sync.transport is nccl",
        ),
        (["data.evaluation=[]"], "evaluation.every_steps", "data.evaluation is empty"),
        (["evaluation.samples=0", "evaluation.greedy=false"], "evaluation.samples", "leaves no completion"),
    ],
)
def test_impossible_values_and_combinations_are_refused(overrides: list[str], key: str, reason: str) -> None:
    lines = [line.strip() for line in refused(*overrides).splitlines()]
    about = [line for line in lines if line.startswith((f"{key} = ", f"{key}: "))]
    assert len(about) == 1, lines
    assert reason in about[0]


@pytest.mark.parametrize(
    ("gpus", "devices", "refused"), [(8, ["auto", "auto"], True), (2, ["cuda:0", "cuda:1"], False)]
)
def test_gpus_that_no_reward_model_uses_are_refused(gpus: int, devices: list[str], refused: bool) -> None:
    models = ", ".join(
        f"{{name: model/{i}, params: {{path: m, device: '{device}'}}}}" for i, device in enumerate(devices)
    )
    overrides = [f"reward_worker.num_gpus={gpus}", f"rewards=[{models}]", "reward_worker.timeout_s=5"]
    if not refused:
        load_config(["tiny"], overrides)
        return
    with pytest.raises(ConfigError, match=r"reserves 8 GPUs for each reward worker, of which its reward models use 1"):
        load_config(["tiny"], overrides)


def test_combinations_next_to_refused_ones_are_allowed() -> None:
    for overrides in (
        ["rollout.top_p=0.9", "algorithm.importance=decoupled"],
        ["run.deterministic=true", "queue.max_staleness=0"],
        ["learner.ranks=2", "learner.zero_stage=3", "learner.offload_parameters=true", "learner.num_gpus=1"],
        ["model.dtype=bfloat16", "learner.zero_stage=3"],
        ["learner.ranks=3"],  # of 128 completions of a minibatch
        ["learner.optimizer.warmup_steps=40"],
        ["learner.micro_batch_tokens=174"],  # model.max_length is 192, but no sequence gets that long
        ["algorithm.loss=dr_grpo", "algorithm.advantage=mean_only", "algorithm.loss_aggregation=constant"],
        ["algorithm.loss=dapo", "algorithm.clip_high=0.28", "algorithm.overlong_buffer_tokens=4"],
        ["algorithm.loss=gspo", "algorithm.loss_aggregation=sequence"],
        ["algorithm.loss=cispo", "algorithm.importance=decoupled", "algorithm.importance_correction=masked"],
        ["rollout.group_size=1", "algorithm.advantage=reinforce_pp"],
        ["data.decontaminate=true", "data.decontaminate_against=[{name: a, kind: jsonl, path: a.jsonl}]"],
        ["algorithm.kl_coefficient=0.001", "algorithm.reference_refresh_steps=10"],
    ):
        load_config(["tiny"], overrides)


def test_fine_tuning_refuses_to_decontaminate_conversations() -> None:
    chats = "data.train=[{name: chats, kind: jsonl, path: a.jsonl}]"
    load_config([], ["model.path=m", "data.evaluation=[]", chats], use="sft")
    with pytest.raises(ConfigError, match="`r1ray sft` trains on all conversations"):
        load_config([], ["model.path=m", "data.decontaminate=true", chats], use="sft")


CHAT = "{name: chats, kind: jsonl, path: a.jsonl}"


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        ([f"data.evaluation=[{CHAT}, {CHAT}]"], "data.evaluation.1.name", "is the name of an earlier source"),
        (["data.train=[{name: a, kind: jsonl, path: a, limit: 0}]"], "data.train.0.limit", "an integer >= 1 or null"),
        (
            ["data.evaluation=[{name: a, kind: jsonl, path: a, limit: -1}]"],
            "data.evaluation.0.limit",
            "an integer >= 1 or null",
        ),
        (["learner.zero_stage=0"], "learner.zero_stage", "no float32 copy"),
        (["learner.micro_batch_tokens=4095"], "learner.micro_batch_tokens", "at least 4096"),
    ],
)
def test_impossible_fine_tuning_is_refused(overrides: list[str], key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config([], ["model.path=m", f"data.train=[{CHAT}]", *overrides], use="sft")
    assert str(caught.value).startswith((f"{key} = ", f"{key}: "))


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        (["data.train=[]"], "data.train", "is empty; add a source of preferences"),
        (["data.train=[{name: a, kind: synthetic, path: bus}]"], "data.train.0.kind", "has no preferences"),
        (["reward_model.kind=listwise"], "reward_model.kind", "one of pairwise, pointwise"),
        (["reward_model.judge=thinking"], "reward_model.judge", "one of auto, summary, response"),
        (["reward_model.held_out=0.0"], "reward_model.held_out", "a number > 0"),
        (["learner.zero_stage=0"], "learner.zero_stage", "float32"),
        (["learner.micro_batch_tokens=8191"], "learner.micro_batch_tokens", "at least 8192"),
    ],
)
def test_impossible_reward_model_training_is_refused(overrides: list[str], key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config([], ["model.path=m", f"data.train=[{CHAT}]", *overrides], use="reward-model")
    assert str(caught.value).startswith(key)


def test_a_single_response_needs_half_the_micro_batch_of_a_pair() -> None:
    half = ["model.path=m", f"data.train=[{CHAT}]", "learner.micro_batch_tokens=4096"]
    load_config([], [*half, "reward_model.kind=pointwise"], use="reward-model")
    with pytest.raises(ConfigError, match=r"2 x model\.max_length = 8192"):
        load_config([], half, use="reward-model")


def test_a_reward_model_is_not_trained_by_adapters() -> None:
    given = ["model.path=m", f"data.train=[{CHAT}]", "model.lora.rank=8"]
    load_config([], given, use="sft")
    with pytest.raises(ConfigError, match=r"model\.lora\.rank = 8 .*a reward model is trained as a whole.*; use null"):
        load_config([], given, use="reward-model")


def test_problems_of_all_sections_are_reported_together_with_their_origin() -> None:
    found = refused("algorithm.loss=dr_grpo", "learner.minibatches=5", "rollout.top_p=0.9")
    assert "4 problems in the configuration" in found
    assert "learner.minibatches = 5 (command line)" in found


def test_values_are_shown_as_in_yaml_and_shortened() -> None:
    with pytest.raises(ConfigError, match=r"a = null: m; f$"):
        refuse([Problem(key="a", value=None, message="m", fix="f")], Provenance())
    with pytest.raises(ConfigError, match=r"a = true \(here\): m; f$"):
        refuse([Problem(key="a", value=True, message="m", fix="f")], Provenance(a="here"))
    with pytest.raises(ConfigError, match=r"a = '?x{76}\.\.\.: m"):
        refuse([Problem(key="a", value="x" * 200, message="m", fix="f")], Provenance())
    refuse([], Provenance())
