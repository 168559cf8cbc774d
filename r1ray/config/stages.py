"""Sections of the configuration that only some commands read: `r1ray sft`, `r1ray sample`, `r1ray eval`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SftConfig:
    """`r1ray sft`; the conversations are `data.train`."""

    epochs: int = 2
    batch_size: int = 128  # conversations of one optimiser step
    held_out: float = 0.01  # share of the conversations, where data.evaluation names no source
    evaluate_every_steps: int = 0  # 0: only before the first and after the last step


@dataclass
class SamplingConfig:
    """`r1ray sample` and `r1ray eval`."""

    prompts_per_part: int = 64  # prompts of one call to a rollout worker, and of one shard


@dataclass
class ThresholdConfig:
    """What a reward must say of a sample."""

    part: str = "accuracy"  # a reward's name, or reward: the weighted sum
    at_least: float = 1.0
    sources: list[str] | None = None  # of data.train; null: all


@dataclass
class RefineConfig:
    """Refinement of what was kept, by a language model behind an OpenAI-compatible endpoint."""

    url: str | None = None  # up to /v1; null: no refinement
    model: str = ""
    template: str | None = None  # {question} and {response} are filled in; null: r1ray's own
    key_variable: str | None = None  # environment variable that holds the endpoint's key
    timeout_s: float = 120.0  # of one refinement, repetitions included
    retries: int = 3  # after a failed connection, an overloaded (429) or a failing (5xx) server
    max_calls: int | None = None  # of the whole run, resumes included; null: not limited
    max_tokens: int = 8192  # of a reply
    parallel: int = 16  # refinements at once


@dataclass
class GeneralConfig:
    """Conversations that are there already and are merged in."""

    name: str = "???"  # their domain, unless a row says `domain`
    kind: str = "jsonl"  # jsonl | parquet | hf
    path: str = "???"  # file, folder or hub id
    split: str = "train"
    columns: dict[str, str] = field(default_factory=dict)  # prompt, response, messages, ... -> column of the file
    params: dict[str, str] = field(default_factory=dict)  # subset, revision: of a Hugging Face data set
    limit: int | None = None  # take the first N rows


@dataclass
class CurationConfig:
    """`r1ray sample`: which samples become the dataset, and in what form. Filters work in this order."""

    correct: list[ThresholdConfig] = field(default_factory=lambda: [ThresholdConfig()])
    drop_truncated: bool = True
    style: str | None = None  # r1_zero | think: the form that a response must have; null: any
    min_language: float = 0.0  # least share of the chain of thought in the target language
    language: str | None = None  # the target; null: the row's target_language, else the question's language
    max_repetition: float | None = None  # largest share of n-grams that occurred before
    repetition_words: int = 8  # of one n-gram
    min_tokens: int = 0
    max_tokens: int | None = None
    max_paragraph_words: int | None = None  # of the chain of thought
    drop_code_blocks: bool = False  # in the chain of thought
    quality: list[ThresholdConfig] = field(default_factory=list)  # e.g. of a judge
    format: str = "as_is"  # as_is | think_summary
    summary: str = "The answer is {answer}."
    prompt_similarity: float | None = None  # Jaccard of word n-grams, between responses to one prompt
    dataset_similarity: float | None = None  # between conversations of the whole dataset
    shingle_words: int = 5  # of one n-gram
    per_prompt: int | None = None  # samples kept of one prompt
    choice: str = "random"  # random | shortest | longest
    quotas: dict[str, int] = field(default_factory=dict)  # domain -> most rows
    refine: RefineConfig = field(default_factory=RefineConfig)
    general: list[GeneralConfig] = field(default_factory=list)
    direct_below_words: int = 0
    empty_thinking: bool = False
    rows_per_file: int = 10000  # of one file of the dataset
