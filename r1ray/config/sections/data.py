"""Section `data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class SourceConfig:
    """One source of prompts, problems or conversations."""

    name: Annotated[str, NonEmpty(), Doc("`task` of its prompts, by which rewards and reports name it")] = "???"
    kind: Annotated[Literal["synthetic", "jsonl", "parquet", "hf"], Doc("where rows come from")] = "synthetic"
    path: Annotated[str | None, Doc("file, folder or hub id; name of the task if kind is synthetic")] = None
    preset: Annotated[
        str | None, Doc("columns and params of a known data set: gsm8k, math, dapo_17k, ...; null: none")
    ] = None
    split: Annotated[str, Doc("split of the data set; of a synthetic task train or heldout")] = "train"
    weight: Annotated[float, Range(gt=0), Doc("share in the mixture, relative to the other sources")] = 1.0
    columns: Annotated[dict[str, str], Doc("prompt, messages, answer, id, ... -> column of the file")] = field(
        default_factory=dict
    )
    params: Annotated[dict[str, Any], Doc("parameters of the synthetic task, or of the loader")] = field(
        default_factory=dict
    )
    limit: Annotated[int | None, Range(ge=1), Doc("take the first N rows; null: all")] = None
    rewards: Annotated[list[str] | None, Doc("names out of `rewards`; null: all of them")] = None
    from_step: Annotated[int, Range(ge=0), Doc("training step at which it joins the mixture")] = 0


@dataclass
class DataConfig:
    """Prompts to train on and problems to evaluate on."""

    train: Annotated[list[SourceConfig], Doc("sources of training prompts")] = field(default_factory=list)
    evaluation: Annotated[list[SourceConfig], Doc("sources of evaluation problems")] = field(default_factory=list)
    template: Annotated[
        Literal["r1_zero", "r1", "plain", "tokenizer", "none"],
        Doc("prompt format; tokenizer: the model's chat template"),
    ] = "tokenizer"
    template_args: Annotated[
        dict[str, Any],
        Doc("arguments of the model's chat template, e.g. {enable_thinking: false}; for tokenizer and r1"),
    ] = field(default_factory=dict)
    system_prompt: Annotated[str | None, Doc("system message before every prompt; null: none")] = None
    shuffle: Annotated[bool, Doc("a new order of the training prompts each epoch")] = True
    max_prompt_tokens: Annotated[int, Range(ge=1), Doc("longer prompts are dropped and counted")] = 1024
    decontaminate: Annotated[
        bool,
        Doc("drop training prompts that share 10-grams with a problem of evaluation or decontaminate_against"),
    ] = False
    decontaminate_against: Annotated[
        list[SourceConfig], Doc("further sources to compare with: benchmarks that this run does not evaluate")
    ] = field(default_factory=list)
