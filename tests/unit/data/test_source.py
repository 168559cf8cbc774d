"""Prompts by index, from files and from synthetic tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from r1ray.codec import pack_rollout
from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.problems import evaluation_prompts, sampling_prompts
from r1ray.data.source import PromptSource
from r1ray.errors import ConfigError, IntegrityError
from r1ray.types import PromptTask, RolloutGroup, Sampling
from tests.unit.data_helpers import GSM8K, ByteTokenizer, needs_gsm8k, write_jsonl

ROWS = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(10)]


def prompts(*sources: SourceConfig, seed: int = 0, **data: Any) -> PromptSource:
    return PromptSource(sources, DataConfig(**{"template": "plain", **data}), ByteTokenizer(), seed)


def jsonl(path: str, name: str = "file", **keys: Any) -> SourceConfig:
    return SourceConfig(name=name, kind="jsonl", path=path, **keys)


def synthetic(task: str = "arithmetic", **keys: Any) -> SourceConfig:
    return SourceConfig(name=task, kind="synthetic", path=task, **keys)


def ids(source: PromptSource, indices: range) -> list[str]:
    return [source.task_at(i).prompt_id for i in indices]


def test_a_prompt_is_whole_and_travels(tmp_path: Path) -> None:
    task = prompts(jsonl(write_jsonl(tmp_path / "a.jsonl", ROWS)), shuffle=False).task_at(13)
    assert (task.prompt_id, task.index, task.epoch, task.task) == ("file/3", 13, 1, "file")
    assert task.messages == ({"role": "user", "content": "What is 3 + 3?"},)
    assert ByteTokenizer().decode(task.token_ids.tolist()) == "User: What is 3 + 3?\nAssistant:"
    assert task.answer == "6"
    sampling = Sampling(temperature=1.0)
    group = RolloutGroup(group_id="13-0", prompt=task, completions=(), sampling=sampling, worker_id="w", timings={})
    assert b"What is 3 + 3?" in pack_rollout(group)


def test_an_index_always_stands_for_the_same_prompt(tmp_path: Path) -> None:
    source = jsonl(write_jsonl(tmp_path / "a.jsonl", ROWS), weight=2.0)
    one, other = prompts(source, synthetic()), prompts(source, synthetic())
    forwards = [one.task_at(i) for i in range(60)]
    backwards = [other.task_at(i) for i in reversed(range(60))][::-1]
    assert [(t.prompt_id, t.token_ids.tolist(), t.answer, t.epoch) for t in forwards] == [
        (t.prompt_id, t.token_ids.tolist(), t.answer, t.epoch) for t in backwards
    ]


def test_epochs_hold_every_row_once_in_a_new_order(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    source = prompts(jsonl(path))
    first, second = ids(source, range(10)), ids(source, range(10, 20))
    assert sorted(first) == sorted(second) == [f"file/{i}" for i in range(10)]
    assert first != second
    assert ids(prompts(jsonl(path), seed=1), range(10)) != first
    assert ids(prompts(jsonl(path), shuffle=False), range(10)) == [f"file/{i}" for i in range(10)]


def test_a_mixture_follows_the_weights(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    source = prompts(jsonl(path, "big", weight=3.0), jsonl(path, "small"))
    names = [source.task_at(i).task for i in range(40)]
    assert names.count("big") == 30
    assert source.finite_length == 20
    assert prompts(jsonl(path), synthetic()).finite_length is None


def test_long_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*ROWS, {"prompt": "x" * 500, "answer": "0"}])
    source = prompts(jsonl(path), max_prompt_tokens=60)
    assert source.finite_length == 10
    assert source.dropped == {"file": {"too_long": 1}}
    assert all(len(source.task_at(i).token_ids) <= 60 for i in range(20))
    with pytest.raises(ConfigError, match="no row to use: 11 too_long"):
        prompts(jsonl(path), max_prompt_tokens=10)


def test_rows_are_chosen_by_pass_rate(tmp_path: Path) -> None:
    rows = [{**row, "solved": i / 10} for i, row in enumerate(ROWS)]
    params = {"min_pass_rate": 0.2, "max_pass_rate": 0.7}
    source = prompts(jsonl(write_jsonl(tmp_path / "a.jsonl", rows), columns={"pass_rate": "solved"}, params=params))
    assert source.dropped == {"file": {"pass_rate": 4}}
    assert source.finite_length == 6


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    source = prompts(jsonl(write_jsonl(tmp_path / "a.jsonl", ROWS), limit=3))
    assert set(ids(source, range(9))) == {"file/0", "file/1", "file/2"}


def test_prompts_that_share_ten_words_with_an_evaluation_are_dropped(tmp_path: Path) -> None:
    question = "a train leaves the station at noon and drives north for three hours at speed"
    rows = [
        {"prompt": "Well: A train leaves the station, at noon, and drives NORTH. Where is it?", "answer": "1"},
        {"prompt": "a train leaves the station at noon and drives west", "answer": "1"},
        {"prompt": "What is 2 + 2?", "answer": "4"},
    ]
    params = {"suffix": " Think as long as you like, then put your final answer within a box."}  # shared, no matter
    train = jsonl(write_jsonl(tmp_path / "a.jsonl", rows), params=params)
    held = write_jsonl(tmp_path / "b.jsonl", [{"prompt": p, "answer": "0"} for p in (question, "what is 2 + 2")])
    source = prompts(train, decontaminate=True, evaluation=[jsonl(held, "held", params=params), synthetic(limit=5)])
    assert source.dropped == {"file": {"contaminated": 2}}
    assert source.task_at(0).prompt_id == "file/1"
    assert prompts(train, evaluation=[jsonl(held, "held")]).dropped == {"file": {}}
    elsewhere = prompts(train, decontaminate=True, decontaminate_against=[jsonl(held, "held")])
    assert elsewhere.dropped == {"file": {"contaminated": 2}}


def test_parquet_and_hugging_face_hold_what_jsonl_holds(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"q": r["prompt"], "answer": r["answer"], "lang": "en", "unused": "x"} for r in ROWS]
    columns = {"prompt": "q", "target_language": "lang"}
    table = pa.Table.from_pylist(rows)
    for part in range(2):
        parquet.write_table(table.slice(5 * part, 5), tmp_path / f"train-{part}.parquet")
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": datasets.Dataset(table)}).save_to_disk(str(tmp_path / "dict"))
    paths = {
        "jsonl": [write_jsonl(tmp_path / "train.jsonl", rows), str(tmp_path)],
        "parquet": [str(tmp_path)],
        "hf": [str(tmp_path / "saved"), str(tmp_path / "dict")],
    }
    seen = []
    for kind, places in paths.items():
        for path in places:
            source = prompts(SourceConfig(name="s", kind=kind, path=path, columns=columns))
            seen.append([(t.prompt_id, t.answer, t.meta) for t in map(source.task_at, range(10))])
    assert all(s == seen[0] for s in seen)
    assert seen[0][0][2] == {"target_language": "en"}


def test_chats_and_nested_answers_are_kept(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "?"},
    ]
    answer = {"tests": [{"stdin": "1", "stdout": "2"}]}
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": chat, "answer": answer, "id": "p7", "entry": "f"}])
    task = prompts(jsonl(path, columns={"entry_point": "entry"})).task_at(0)
    assert task.messages == tuple(chat)
    assert task.answer == answer
    assert (task.prompt_id, task.meta) == ("file/p7", {"entry_point": "f"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row to use: the file is empty"),
        ("\n  \n", "no row to use: the file is empty"),
        ('{"prompt": "a", "answer": "b"}\n\n{"prompt": "a"}\n', r"a\.jsonl:3: the answer .* missing"),
        ('{"prompt": "a", "answer": "b"}\n{"prompt"', r"a\.jsonl:2: not JSON"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        prompts(jsonl(str(tmp_path / "a.jsonl")))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (jsonl("nowhere.jsonl"), "nowhere.jsonl does not exist"),
        (jsonl(".", split="nowhere"), r"contains no nowhere\.jsonl"),
        (jsonl("x", params={"sufix": "y"}), "no parameter 'sufix'"),
        (SourceConfig(name="p", kind="parquet", path=__file__), "cannot be read as Parquet"),
        (synthetic("countdwn"), r"no synthetic task 'countdwn' \(did you mean 'countdown'"),
        (synthetic("arithmetic", params={"digit": 3}), r"no parameter 'digit' \(did you mean 'digits'"),
        (synthetic(split="heldout"), "expected train for training"),
    ],
)
def test_a_source_that_cannot_be_is_refused(source: SourceConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prompts(source)


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    source = SourceConfig(name="p", kind="parquet", path=str(tmp_path / "a.parquet"), columns={"prompt": "question"})
    with pytest.raises(ConfigError, match=r"\['question'\] not found in .* has \['prompt', 'answer'\]"):
        prompts(source)


def test_a_file_that_changed_under_the_run_is_noticed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "answer": "1", "pad": "y" * 200}])
    source = prompts(jsonl(path), max_prompt_tokens=40)
    changed = '{"prompt": "' + "x" * 200 + '", "answer": "1"}'
    with open(path, "r+", encoding="utf-8") as file:  # in place: the mapping sees it
        file.write(changed.ljust(len(Path(path).read_bytes()) - 1))
    with pytest.raises(IntegrityError, match="the file has changed"):
        source.task_at(0)


def test_synthetic_problems_that_are_too_long_give_way_to_others() -> None:
    params = {"digits": [1, 8]}
    source = prompts(synthetic(params=params), max_prompt_tokens=41)
    tasks = [source.task_at(i) for i in range(100)]
    assert max(len(t.token_ids) for t in tasks) <= 41
    assert source.dropped["arithmetic"]["too_long"] > 0
    assert source.task_at(7).token_ids.tolist() == tasks[7].token_ids.tolist()
    assert tasks[0].meta == {"synthetic": "arithmetic", "params": params}
    with pytest.raises(ConfigError, match=r"consecutive problems .* are longer"):
        prompts(synthetic(), max_prompt_tokens=5).task_at(0)


def test_evaluation_takes_the_heldout_split_in_order() -> None:
    data = DataConfig(template="plain")
    held = evaluation_prompts(synthetic(limit=50), data, ByteTokenizer(), 0)
    assert [t.index for t in held] == list(range(50))
    train = prompts(synthetic())
    assert {t.prompt_id for t in held}.isdisjoint(ids(train, range(500)))


def test_a_sampling_job_takes_the_split_that_its_source_names() -> None:
    data = DataConfig(template="plain")
    held, train = (
        [t.prompt_id for t in sampling_prompts(synthetic(limit=50, split=split), data, ByteTokenizer(), 0)]
        for split in ("heldout", "train")
    )
    assert held == [t.prompt_id for t in evaluation_prompts(synthetic(limit=50), data, ByteTokenizer(), 0)]
    assert len(train) == 50
    assert set(held).isdisjoint(train)


def test_a_benchmark_is_not_shortened(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*ROWS, {"prompt": "x" * 500, "answer": "0"}])
    data = DataConfig(template="plain", max_prompt_tokens=60)
    with pytest.raises(ConfigError, match="1 problems of the evaluation source file are longer"):
        evaluation_prompts(jsonl(path), data, ByteTokenizer(), 0)
    data.max_prompt_tokens = 600
    assert [t.prompt_id for t in evaluation_prompts(jsonl(path), data, ByteTokenizer(), 0)] == [
        f"file/{i}" for i in range(11)
    ]


@needs_gsm8k
def test_gsm8k_loads_whole() -> None:
    keys: dict[str, Any] = {"columns": {"prompt": "question"}, "params": {"answer_after": "####", "suffix": " Box it."}}
    test = jsonl(str(GSM8K), "test", split="test", **keys)
    data = DataConfig(template="r1_zero", max_prompt_tokens=4096)
    held = evaluation_prompts(test, data, ByteTokenizer(), 0)
    train = prompts(jsonl(str(GSM8K), "gsm8k", **keys), template="r1_zero", max_prompt_tokens=4096)
    assert (len(held), train.finite_length) == (1319, 7473)
    first: PromptTask = held[0]
    assert first.answer == "18"
    assert first.messages[0]["content"].endswith("market? Box it.")
    assert {t.answer.replace(",", "").lstrip("-").replace(".", "").isdigit() for t in held} == {True}
