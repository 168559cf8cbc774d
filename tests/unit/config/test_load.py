"""Merging base.yaml, overlays and overrides: precedence, provenance and the report of problems."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r1ray.config.identity import ALTERABLE, DIVISION, changes, config_hash, flatten, may_change, refuse_another_run
from r1ray.config.load import LoadedConfig, load_config
from r1ray.config.problems import Provenance
from r1ray.config.sources import CONF_DIR
from r1ray.config.uses import Use
from r1ray.errors import ConfigError

LAUNCHER_FILES = tuple(  # of `ray up`, AWS and Kubernetes, not configurations
    f"clusters/{name}.yaml" for name in ("on-premise", "aws-base", "kuberay", "kuberay-job")
)
OVERLAYS = sorted(
    name
    for p in CONF_DIR.rglob("*.yaml")
    if "recipes" not in p.parts and (name := str(p.relative_to(CONF_DIR))) not in LAUNCHER_FILES
)


def tiny(*overrides: str) -> LoadedConfig:
    return load_config(["tiny"], overrides)


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        tiny(*overrides)
    return str(caught.value)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o.startswith("clusters/")])
def test_cluster_overlays_load_on_top_of_a_model(overlay: str) -> None:
    assert load_config(["models/qwen2.5-1.5b", "clusters/ray", overlay]).config.ray.address is not None


def test_the_overlay_of_reward_models_loads_with_a_model_and_rows() -> None:
    rows = "data.train=[{name: pairs, kind: jsonl, path: pairs.jsonl}]"
    config = load_config(["reward_model"], ["model.path=m", rows], "reward-model").config
    assert (config.reward_model.batch_size, config.model.max_length, config.learner.optimizer.lr) == (256, 8192, 6e-6)


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if not o.startswith(("base", "clusters/", "reward_model"))])
def test_overlays_load_alone_and_survive_a_round_trip(overlay: str, tmp_path: Path) -> None:
    loaded = load_config([overlay])
    again = load_config([write(tmp_path / "config.yaml", loaded.to_yaml())])
    assert again.config == loaded.config


def test_later_sources_win_maps_merge_and_lists_are_replaced(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "rollout: {workers: 2, engine: {extra: {x: 1}}}\nrewards: [{name: format}]\n")
    second = write(tmp_path / "b.yaml", "rollout: {workers: 3, engine: {extra: {y: [2]}}}\n")
    config = load_config(["tiny", first, second], ["rollout.max_workers=5", "rollout.engine.extra.z=null"]).config
    assert (config.rollout.workers, config.rollout.max_workers) == (3, 5)
    assert config.rollout.engine.extra == {"x": 1, "y": [2], "z": None}
    assert [r.name for r in config.rewards] == ["format"]


def test_extended_files_are_read_first_and_once(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "extends: [tiny]\nrun: {steps: 5, seed: 1}\n")
    write(tmp_path / "left.yaml", "extends: [root.yaml]\nrun: {steps: 6}\n")
    top = write(tmp_path / "top.yaml", "extends: [left, root]\nrun: {seed: 2}\n")
    loaded = load_config([top])
    assert [Path(s).name for s in loaded.sources] == ["base.yaml", "tiny.yaml", "root.yaml", "left.yaml", "top.yaml"]
    assert (loaded.config.run.steps, loaded.config.run.seed) == (6, 2)


def test_provenance_names_file_and_line(tmp_path: Path) -> None:
    overlay = write(tmp_path / "o.yaml", "\nrun:\n  steps: 7\nrewards:\n  - name: format\n    weight: 2\n")
    loaded = load_config(["tiny", overlay], ["run.seed=3"])
    assert loaded.provenance["run.steps"] == f"{overlay}:3"
    assert loaded.provenance["rewards.0.weight"] == f"{overlay}:6"
    assert loaded.provenance["run.seed"] == "command line"
    assert loaded.provenance["run.deterministic"].startswith("conf/base.yaml:")
    assert loaded.provenance.of("rewards.0.params") == f"{overlay}:4"


def test_a_replaced_list_forgets_where_its_old_entries_came_from() -> None:
    provenance = tiny("rewards=[{name: format}]").provenance
    assert provenance.of("rewards.1.name") == "command line"


def test_list_entries_are_addressed_by_number() -> None:
    config = tiny("data.train.0.params.n=[4, 5]", "rewards.1.weight=0.25").config
    assert (config.data.train[0].params, config.rewards[1].weight) == ({"n": [4, 5]}, 0.25)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rollout.group_sze=3", "did you mean rollout.group_size?"),
        ("rollot.workers=2", "did you mean rollout?"),
        ("lr=1", "did you mean learner.optimizer.lr?"),
        ("rollout.engine.xyzzy=2", "rollout.engine has dtype"),
        ("run.steps=abc", "run.steps: expected an integer >= 1, got 'abc' (command line)"),
        ("run.steps=2.5", "expected an integer >= 1, got 2.5"),
        ("run.seed=true", "expected an integer >= 0 and <= 4294967295, got true"),
        ("run.name=null", "expected a string that is not empty, got null"),
        ("learner.optimizer.betas=[0.9]", "expected a list of 2 numbers >= 0 and < 1, got [0.9]"),
        ("rollout.engine.kv_cache_gib=lots", "expected a number > 0 or null, got 'lots'"),
        ("run=3", "expected a section, not a value; its keys are name, dir"),
        ("run.steps.x=3", "run.steps is a value and has no keys"),
        ("rewards=4", "expected a list of sections; write rewards: [{...}]"),
        ("rewards=[3]", "rewards.0 = 3 (command line): expected a section"),
        ("data.train.7.name=x", "no such entry: 7; data.train has 1 entries"),
        ("data.train.0.nam=x", "did you mean data.train.0.name?"),
        ("rewards=[{weight: 1}]", "rewards.0.name = '???'"),
        ("run.name=${run.dir}", "values are literals"),
        ("run.name=${oc.env:HOME}", "values are literals"),
        ("run.steps=[1", "is not YAML"),
        ("run.steps", "'run.steps' is neither"),
        ("=3", "is neither"),
    ],
)
def test_problems_name_key_value_origin_and_remedy(override: str, expected: str) -> None:
    assert expected in refusal(override)


def test_all_problems_come_at_once() -> None:
    message = refusal("rollout.group_sze=3", "run.steps=abc", "learner.ranks=0", "sync.digest=half", "rewards=4")
    assert message.startswith("5 problems")
    assert [re.split(" = |: ", line)[0].strip() for line in message.splitlines()[1:]] == [
        "rollout.group_sze",
        "run.steps",
        "learner.ranks",
        "sync.digest",
        "rewards",
    ]


def test_a_later_source_corrects_an_earlier_one(tmp_path: Path) -> None:
    overlay = write(
        tmp_path / "o.yaml", "extends: [tiny]\nlearner:\n  ranks: two\nrewards: [{name: format, weight: x}]\n"
    )
    corrected = load_config([overlay], ["learner.ranks=2", "rewards=[{name: format}]"]).config
    assert (corrected.learner.ranks, corrected.rewards[0].weight) == (2, 1.0)
    with pytest.raises(ConfigError) as caught:
        load_config([overlay], ["rewards=[{name: format}]"])
    assert str(caught.value) == f"learner.ranks: expected an integer >= 1, got 'two' ({overlay}:3)"


def test_a_problem_of_a_file_has_its_line(tmp_path: Path) -> None:
    overlay = write(tmp_path / "o.yaml", "extends: [tiny]\nrun:\n  name: x\n  stps: 3\n")
    with pytest.raises(ConfigError, match=re.escape(f"run.stps = 3 ({overlay}:4)")):
        load_config([overlay])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1\n", "expected a map of sections, got a list"),
        ("run: {steps: 1\n", "cannot be read as YAML"),
        ("run: {steps: 1, steps: 2}\n", "cannot be read as YAML"),
        ("run: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        ("extends: tiny\n", "extends: expected a list of paths or names"),
        ("extends: [nowhere]\n", "extends 'nowhere'"),
        ("extends: [o.yaml]\n", "extends itself"),
    ],
)
def test_unreadable_files_are_refused_by_name(text: str, expected: str, tmp_path: Path) -> None:
    overlay = write(tmp_path / "o.yaml", text)
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        load_config([overlay])
    assert "o.yaml" in str(caught.value)


def test_an_unknown_overlay_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file 'tinny'.*tiny"):
        load_config(["tinny"])


def test_a_mandatory_key_that_nothing_sets_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.path = '\?\?\?' \(conf/base\.yaml:\d+\): has no default"):
        load_config([])


class TestIdentity:
    def test_alterable_keys_do_not_change_the_hash(self) -> None:
        same = tiny("run.steps=80", "rollout.workers=2", "deadlines.rpc_s=5", "logging.tensorboard=false").config
        assert config_hash(same) == config_hash(tiny().config)
        assert config_hash(tiny("run.seed=1").config) != config_hash(tiny().config)

    def test_changes_name_old_and_new(self) -> None:
        assert changes(tiny().config, tiny("run.steps=80").config) == {"run.steps": (40, 80)}

    def test_a_section_may_change_and_its_neighbour_by_name_may_not(self) -> None:
        assert may_change("ray.num_cpus")
        assert may_change("run.steps")
        assert not may_change("rollout.engine.dtype")
        keys = list(flatten(tiny().config))
        assert [a for a in ALTERABLE if not any(k == a or k.startswith(f"{a}.") for k in keys)] == []

    @pytest.mark.parametrize("use", ["train", "sft"])
    def test_how_a_step_is_divided_may_change(self, use: Use) -> None:
        changed = tiny("learner.ranks=2", "learner.zero_stage=2", "learner.micro_batch_tokens=256").config
        assert config_hash(changed, use) == config_hash(tiny().config, use)
        refuse_another_run(tiny().config, changed, Provenance(), use)
        assert set(DIVISION) <= set(flatten(changed))

    def test_how_a_step_is_divided_may_not_change_in_a_deterministic_run(self) -> None:
        exact = ("run.deterministic=true", "queue.max_staleness=0")
        begun, wanted = tiny(*exact).config, tiny(*exact, "learner.ranks=2", "run.steps=3").config
        assert config_hash(begun) != config_hash(wanted)
        with pytest.raises(ConfigError, match=r"learner\.ranks = 2.*started with 1") as caught:
            refuse_another_run(begun, wanted, Provenance())
        assert "run.steps" not in str(caught.value)

    def test_another_run_is_refused_by_key(self) -> None:
        wanted = tiny("algorithm.clip_low=0.1", "run.steps=3")
        with pytest.raises(ConfigError, match=r"algorithm\.clip_low = 0\.1 .*started with 0\.2") as caught:
            refuse_another_run(tiny().config, wanted.config, wanted.provenance)
        assert "run.steps" not in str(caught.value)
        refuse_another_run(tiny().config, tiny("run.steps=3").config, Provenance())
