"""Configurations that cannot run: `--dry-run` and a start refuse each in the same words, before Ray,
and write nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.cli import main
from r1ray.errors import ConfigError
from r1ray.util.machine import GIB, Machine
from tests.unit.data_helpers import write_jsonl

LAPTOP = Machine(cores=2, memory_bytes=16 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
SECONDS = 5.0
"""Of processor time for one command, without imports: the wall clock of a busy machine says nothing."""

OWN = """
def shout(sample, volume):
    return 1.0
def no_gradient(x):
    from learner.losses import TokenLoss
    return TokenLoss(loss_T=x.old_logprobs_T, ratio_T=x.old_logprobs_T, clipped_T=x.old_logprobs_T)
def one_too_many(rewards_G):
    return [*rewards_G, 0.0]
class NoTask:
    pass
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models, whole and damaged."""
    from learner.tiny.build import write_untrained

    folder = tmp_path_factory.mktemp("models")
    write_untrained(folder / "whole")
    for name in ("no_weights", "no_tokenizer", "no_template", "small_vocabulary"):
        shutil.copytree(folder / "whole", folder / name)
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "no_tokenizer" / "tokenizer.json").unlink()
    (folder / "no_template" / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "no_template" / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "no_template" / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "small_vocabulary" / "config.json").read_text())
    (folder / "small_vocabulary" / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    return folder


@pytest.fixture(autouse=True)
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with data files, on a laptop, where reaching Ray fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("r1ray.preflight.prepare.this_machine", lambda: LAPTOP)
    monkeypatch.setattr("r1ray.util.machine.this_machine", lambda: LAPTOP)
    monkeypatch.setattr("r1ray.launch.ray_session.connect", _reached)
    monkeypatch.setattr("ray.init", _reached)
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "wrong_own.py").write_text(OWN)
    sums = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    write_jsonl(tmp_path / "sums.jsonl", sums)
    write_jsonl(tmp_path / "few.jsonl", sums[:3])
    write_jsonl(tmp_path / "words.jsonl", [{"prompt": f"Name {i}", "answer": "Ada"} for i in range(40)])
    write_jsonl(tmp_path / "untold.jsonl", [{"prompt": f"Name {i}"} for i in range(40)])
    long = [{"prompt": "again " * 200, "answer": "1"} for _ in range(40)]
    write_jsonl(tmp_path / "long.jsonl", long)
    write_jsonl(tmp_path / "mixed.jsonl", [*sums, *long])
    write_jsonl(tmp_path / "gsm.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    write_jsonl(tmp_path / "gsm_good.jsonl", [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(9)])
    write_jsonl(tmp_path / "chats.jsonl", [{"prompt": f"{i}?", "response": f"{i}!"} for i in range(8)])
    write_jsonl(tmp_path / "half_chats.jsonl", [{"prompt": "1?"}])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text('{"prompt": "1?", "answer": "1"}\n{"prompt": \n')
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    yield tmp_path
    sys.modules.pop("wrong_own", None)


def _reached(*args: Any, **kwargs: Any) -> None:
    pytest.fail("Ray was reached")


def train(*settings: str) -> list[str]:
    return ["train", "tiny", "model.path=models/whole", *settings]


def on_file(name: str, **more: str) -> str:
    rest = "".join(f", {key}: {value}" for key, value in more.items())
    return f"data.train=[{{name: own, kind: jsonl, path: {name}.jsonl{rest}}}]"


def rewards(*entries: str) -> str:
    return f"rewards=[{', '.join(entries)}]"


def accuracy(verifier: str) -> str:
    return f"{{name: accuracy, params: {{verifier: {verifier}}}}}"


NUMERIC = rewards(accuracy("numeric"))
ENDLESS = "data.train=[{name: own, path: arithmetic, params: "

WRONG: dict[str, tuple[list[str], str]] = {
    "unknown key": (train("run.stepz=3"), "did you mean run.steps"),
    "wrong type": (train("run.steps=many"), "run.steps: expected an integer >= 1, got 'many'"),
    "unknown choice": (train("algorithm.advantage=grop"), "got 'grop'"),
    "out of range": (train("learner.micro_batch_tokens=0"), "learner.micro_batch_tokens: expected an integer >= 1"),
    "keys that exclude each other": (train("rollout.workers=9"), "rollout.max_workers"),
    "no model": (train("model.path=models/none"), "models/none is not a folder"),
    "no weights": (train("model.path=models/no_weights"), "has no weights"),
    "no tokenizer": (train("model.path=models/no_tokenizer"), "has no tokenizer"),
    "no chat template": (train("model.path=models/no_template", "data.template=tokenizer"), "needs a chat template"),
    "another model's tokenizer": (train("model.path=models/small_vocabulary"), "a model of 100 ids (vocab_size)"),
    "longer than the context": (train("model.max_length=4096"), "max_position_embeddings = 512"),
    "replay of nothing": (train("--replay", "runs/none"), "replay.run = runs/none: runs/none is not a run folder"),
    "replay of a file": (train("--replay", "file"), "replay.run = file: file is not a run folder"),
    "no GPU": (train("learner.num_gpus=1"), "this machine has no GPU"),
    "small KV cache": (train("rollout.engine.kv_cache_gib=0.0001"), "too small for one sequence"),
    "no such interface": (train("sync.interface=wlan9"), "no such interface"),
    "large object store": (train("ray.object_store_gib=3"), "more than /dev/shm has free"),
    "too little memory": (train("rollout.engine.kv_cache_gib=40"), "this machine has 16.0 GiB"),
    "resource of no cluster": (train("ray.rollout_resources={spot: 1}"), "a local cluster does not have"),
    "no file": (train(on_file("none"), NUMERIC), "data.train.0.path = 'none.jsonl'"),
    "empty file": (train(on_file("empty"), NUMERIC), "is empty: it has no prompt"),
    "broken line": (train(on_file("broken"), NUMERIC), "broken.jsonl:2: not JSON"),
    "no such column": (train(on_file("sums", columns="{prompt: question}"), NUMERIC), "sums.jsonl:1: "),
    "unknown parameter of a file": (train(on_file("sums", params="{suffx: x}"), NUMERIC), "no parameter 'suffx'"),
    "no answer behind the mark": (train(on_file("sums", params="{answer_after: '####'}"), NUMERIC), "the mark '####'"),
    "rows all too long": (train(on_file("long"), NUMERIC), "has no row to use: 40 too_long"),
    "fewer rows than a step": (train(on_file("few"), NUMERIC), "more than the 3 prompts of data.train"),
    "unknown task": (train("data.train=[{name: own, path: arithmetik}]"), "did you mean 'arithmetic'"),
    "unknown parameter of a task": (train(ENDLESS + "{digit: 2}}]"), "no parameter 'digit'"),
    "wrong parameter of a task": (train(ENDLESS + "{operations: '/'}}]"), "operations: expected some of +-*, got '/'"),
    "task that cannot be imported": (train("data.train=[{name: own, path: 'nowhere:Task'}]"), "No module named 'nowhere'"),
    "task without its methods": (train("data.train=[{name: own, path: 'wrong_own:NoTask'}]"), "methods problem and check"),
    "problems all too long": (train("data.max_prompt_tokens=4"), "longer than data.max_prompt_tokens"),
    "evaluation on long rows": (
        train("data.evaluation=[{name: exam, kind: jsonl, path: mixed.jsonl}]", NUMERIC),
        "40 problems of the evaluation source exam are longer",
    ),
    "task's verifier on a file": (train(on_file("sums")), "accuracy/task judges prompts of synthetic tasks only"),
    "numeric verifier on words": (train(on_file("words"), NUMERIC), "the answer 'Ada' is no number"),
    "math verifier without answers": (train(on_file("untold"), rewards(accuracy("math"))), "is missing or null"),
    "unknown reward": (train(rewards("{name: acuracy}")), "did you mean 'accuracy'"),
    "unknown verifier": (train(rewards(accuracy("maths"))), "verifier = 'maths' is unknown"),
    "unknown parameter of a reward": (train(rewards("{name: format, params: {strct: 1}}")), "no parameter 'strct'"),
    "wrong parameter of a reward": (
        train(rewards("{name: accuracy, params: {verifier: numeric, relative: tiny}}")),
        "relative: expected a finite number, got 'tiny'",
    ),
    "reward that cannot be imported": (train(rewards("{name: 'nowhere:f'}")), "No module named 'nowhere'"),
    "reward with another signature": (train(rewards("{name: 'wrong_own:shout'}")), "missing a required argument: 'volume'"),
    "source with an unknown reward": (train(on_file("sums", rewards="[style]"), NUMERIC), "data.train.0.rewards"),
    "no reward model": (train(rewards("{name: model, params: {path: models/none}}")), "models/none"),
    "loss that cannot be imported": (train("algorithm.loss=nowhere:f"), "No module named 'nowhere'"),
    "loss without a gradient": (train("algorithm.loss=wrong_own:no_gradient"), "there is no gradient"),
    "advantage of another shape": (train("algorithm.advantage=wrong_own:one_too_many"), "expected the shape (4,)"),
    "arguments for no chat template": (train("data.template_args={enable_thinking: false}"), "data.template_args"),
    "unknown engine argument": (
        train("rollout.engine.extra={max_num_batched_token: 64}"),
        "did you mean max_num_batched_tokens?",
    ),
    "engine argument with its own key": (train("rollout.engine.extra={max_model_len: 64}"), "set model.max_length"),
    "code of a model by another way": (
        train("rollout.engine.extra={trust_remote_code: true}"),
        "set model.trust_remote_code",
    ),
    "no cluster": (train("ray.address=127.0.0.1:1"), "no Ray cluster answers there"),
    "address of a Ray client": (train("ray.address=ray://head:10001"), "expected host:port"),
    "no wandb": (train("logging.wandb_project=p"), "needs the package wandb"),
    "run folder is a file": (train("run.dir=file"), "run.dir = file is a file"),
    "run folder of something else": (train("run.dir=full"), "thesis.tex"),
    "run folder below a file": (train("run.dir=file/run"), "is a file; give another folder"),
    "two overlays of which one is missing": (["train", "tiny", "huge"], "no configuration file 'huge'"),
    "sample: task's verifier on a file": (["sample", *train(on_file("sums"))[1:]], "accuracy/task judges"),
    "sample: no data to add": (
        ["sample", *train(on_file("sums"), NUMERIC, "curation.general=[{name: g, kind: jsonl, path: none.jsonl}]")[1:]],
        "none.jsonl",
    ),
    "sft: half a conversation": (["sft", *train(on_file("half_chats"), "data.evaluation=[]")[1:]], "half_chats.jsonl:1"),
    "sft: warm-up longer than the run": (
        ["sft", *train(on_file("chats"), "data.evaluation=[]", "learner.optimizer.warmup_steps=9")[1:]],
        "warmup_steps=9 is more than the run's 2 steps",
    ),
    "sft: a synthetic source": (["sft", *train("data.evaluation=[]")[1:]], "data.train.0.kind = 'synthetic'"),
    "reward-model: rows of another kind": (
        ["reward-model", *train(on_file("chats"), "data.evaluation=[]")[1:]],
        "chats.jsonl:1: chosen = None: expected a string",
    ),
    "eval: unknown benchmark": (["eval", "models/whole", "--benchmarks", "gsm9k"], "did you mean gsm8k?"),
    "eval: wrong parameter of a task": (
        ["eval", "models/whole", "--benchmarks", "arithmetic:digits=1-1;operations=%"],
        "operations: expected some of +-*, got '%'",
    ),
    "eval: no problems": (
        ["eval", "models/whole", "--benchmarks", "gsm8k", "--data", "gsm8k=none.jsonl"],
        "none.jsonl",
    ),
    "eval: problems in another shape": (
        ["eval", "models/whole", "--benchmarks", "gsm8k", "--data", "gsm8k=gsm.jsonl"],
        "gsm.jsonl",
    ),
}  # fmt: skip


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of `r1ray words`, and its message."""
    monkeypatch.setattr(sys, "argv", ["r1ray", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capfd.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_a_dry_run_and_a_start_refuse_it_alike(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words, message = WRONG[name]
    before = sorted(here.rglob("*"))
    began = time.process_time()
    dry = refused([*words, "--dry-run"], monkeypatch, capfd)
    spent_s = time.process_time() - began
    assert refused(words, monkeypatch, capfd) == dry
    code, text = dry
    assert code == ConfigError.exit_code
    assert text.startswith("ConfigError: ")
    assert message in text
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts) == before
    assert spent_s < SECONDS


def test_the_table_is_long_enough() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize(
    "words",
    [
        train(),
        train(on_file("sums"), NUMERIC),
        train("rollout.engine.extra={max_logprobs: 5}"),
        ["sft", *train(on_file("chats"), "data.evaluation=[]")[1:]],
        ["sample", *train(on_file("sums"), NUMERIC)[1:]],
        ["eval", "models/whole", "--benchmarks", "arithmetic:digits=1-1;operations=+"],
        ["eval", "models/whole", "--benchmarks", "gsm8k,bus:n=2-3", "--data", "gsm8k=gsm_good.jsonl"],
        ["eval", "models/whole", "--benchmarks", "arithmetic:digits=1-2;operations=+-,bus:n=4-7"],
    ],
)  # fmt: skip
def test_what_can_run_is_shown_and_writes_nothing(
    words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["r1ray", *words, "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capfd.readouterr()
    assert ended.value.code == 0, printed.err
    assert "Fits this machine." in printed.out
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts) == before
