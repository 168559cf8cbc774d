"""The dataset of a run folder: only of samples that are whole, anew with other filters,
refused before anything is written.
"""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner

from r1ray.cli.sample import register
from r1ray.config.schema import Config, CurationConfig, GeneralConfig, RefineConfig, RewardConfig, SourceConfig
from r1ray.config.uses import Use
from r1ray.curation import output
from r1ray.curation.dataset import SAMPLES, check_inputs, is_sampled, make_dataset, mark_sampled
from r1ray.errors import ConfigError, DiskFull, IntegrityError
from r1ray.run.folder import FORMAT
from r1ray.run.identity import RunIdentity
from r1ray.sampling.store import Part, write_shard
from tests.unit.curation_support import prompts
from tests.unit.endpoint_support import endpoint

REFINED = "<think>I add them.</think> <answer>5</answer>"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / SAMPLES).mkdir()
    for start in (0, 4):
        part = Part(source="sums", start=start, stop=start + 4)
        write_shard(tmp_path / SAMPLES, part, prompts(8, 2)[2 * start : 2 * start + 8])
    return tmp_path


def config(**curation: Any) -> Config:
    made = Config()
    made.model.path = "nowhere"  # neither model nor tokenizer are needed
    made.rewards = [RewardConfig(name="accuracy", params={"verifier": "exact"})]
    made.data.train = [SourceConfig(name="sums", path="sums")]
    made.curation = CurationConfig(**curation)
    return made


def test_only_whole_samples_become_a_dataset(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="is not sampled to the end: `r1ray sample --resume"):
        make_dataset(run_dir, config())
    mark_sampled(run_dir)
    assert is_sampled(run_dir)
    assert make_dataset(run_dir, config())["total"]["kept"] == 16
    assert make_dataset(run_dir, config(per_prompt=1))["total"]["kept"] == 8
    next((run_dir / SAMPLES).iterdir()).unlink()
    with pytest.raises(IntegrityError, match="holds 8 samples, but 16 were sampled"):
        make_dataset(run_dir, config())


def test_a_full_disk_is_told_and_leaves_what_was_there(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    mark_sampled(run_dir)
    make_dataset(run_dir, config())
    before = sorted(path.name for path in run_dir.iterdir())
    monkeypatch.setattr(output, "write_atomic", full)
    with pytest.raises(DiskFull, match="make room, then `r1ray sample --resume"):
        make_dataset(run_dir, config())
    assert sorted(path.name for path in run_dir.iterdir()) == before


def test_refined_texts_are_in_the_dataset_and_asked_for_once(run_dir: Path) -> None:
    mark_sampled(run_dir)
    tokens = []
    with endpoint((200, REFINED)) as (url, asked):
        wanted = config(refine=RefineConfig(url=url, model="m"), quotas={"sums": 6}, max_tokens=30)
        wanted = replace(wanted, model=replace(wanted.model, path=str(tokenizer(run_dir))))
        for _ in range(2):
            report = make_dataset(run_dir, wanted, tokens.append)
        assert len(asked) == 6
    # the answer of the first prompt, 2 + 3, is the only one that is still right
    assert report["total"]["dropped"] == {"too_long": 8, "quota": 2, "refine_incorrect": 5}
    (row,) = parquet.read_table(run_dir / "dataset").to_pylist()
    assert row["messages"][-1]["content"] == REFINED
    assert row["tokens"] == len(REFINED)
    assert max(tokens) == 6


def tokenizer(folder: Path) -> Path:
    """One token for each character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocabulary = {chr(i): i for i in range(32, 127)} | {"?": 63}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    path = folder / "model"
    path.mkdir()
    made.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return path


def test_what_curation_reads_besides_is_checked_before_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R1RAY_TEST_KEY", raising=False)
    check_inputs(config())
    with pytest.raises(ConfigError, match="does not exist"):
        check_inputs(config(general=[GeneralConfig(name="chat", path=str(tmp_path / "chat.jsonl"))]))
    with pytest.raises(ConfigError, match="R1RAY_TEST_KEY"):
        check_inputs(config(refine=RefineConfig(url="http://127.0.0.1:1/v1", model="m", key_variable="R1RAY_TEST_KEY")))


def begun(run_dir: Path, use: Use) -> None:
    """A run folder of a command, with a configuration that samples the sums."""
    source = {"name": "sums", "kind": "synthetic", "path": "arithmetic", "limit": 8}
    written = {"run": {"dir": str(run_dir)}, "model": {"path": "nowhere"}, "data": {"train": [source]}}
    written["rewards"] = [{"name": "accuracy", "params": {"verifier": "exact"}}]  # type: ignore[assignment]
    written["rollout"] = {"num_gpus": 0.0, "engine": {"kv_cache_gib": 0.1, "enforce_eager": True}}
    (run_dir / "config.yaml").write_text(json.dumps(written))
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m", use=use)
    (run_dir / "run.json").write_text(json.dumps({"format": FORMAT, **asdict(identity)}))


def command(*words: str | Path) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_makes_the_dataset_anew_with_other_filters_and_keeps_them(run_dir: Path) -> None:
    mark_sampled(run_dir)
    begun(run_dir, "sample")
    told = command("--only-curate", run_dir, "curation.per_prompt=1")
    assert told.exit_code == 0, told.output
    assert "Dataset: 8 of 16 samples (50%)" in told.output
    assert "per_prompt: 1" in (run_dir / "config.yaml").read_text()
    assert command("--only-curate", run_dir).exit_code == 0
    assert parquet.read_table(run_dir / "dataset").num_rows == 8
    assert "8 per_prompt, 8 quota" in str(command("--only-curate", run_dir, "curation.quotas={sums: 0}").exception)


@pytest.mark.parametrize(
    ("use", "words", "message"),
    [
        ("train", [], "is a run of `r1ray train`: resume it with that command"),
        ("sample", ["rollout.group_size=3"], "the run was started with 16"),
        ("sample", ["--resume", "x"], "give one of them"),
        ("sample", [], "is not sampled to the end"),
    ],
)
def test_the_command_refuses_what_is_no_run_to_curate(run_dir: Path, use: Use, words: list[str], message: str) -> None:
    begun(run_dir, use)
    refused = command("--only-curate", run_dir, *words).exception
    assert isinstance(refused, ConfigError)
    assert message in str(refused)
    assert not (run_dir / "dataset").exists()
