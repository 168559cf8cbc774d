"""Section `curation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class ThresholdConfig:
    """A least value of one part of a sample's score."""

    part: Annotated[str, Doc("name of a reward; `reward` is the weighted sum")] = "accuracy"
    at_least: Annotated[float, Range(), Doc("least value of that part")] = 1.0
    sources: Annotated[list[str] | None, Doc("sources of data.train that it applies to; null: all")] = None


@dataclass
class RefineConfig:
    """Rewriting of the kept responses by a language model behind an OpenAI-compatible endpoint."""

    url: Annotated[str | None, Doc("address of the endpoint, up to /v1; null: no refinement")] = None
    model: Annotated[str, Doc("name of the model at the endpoint")] = ""
    template: Annotated[
        str | None, Doc("the request, in which {question} and {response} are replaced; null: the built-in one")
    ] = None
    key_variable: Annotated[str | None, Doc("environment variable that holds the endpoint's key; null: no key")] = None
    timeout_s: Annotated[float, Range(gt=0), Doc("deadline of one refinement, retries included")] = 120.0
    retries: Annotated[
        int, Range(ge=0), Doc("retries after a failed connection, an overloaded (429) or a failing (5xx) server")
    ] = 3
    max_calls: Annotated[
        int | None, Range(ge=0), Doc("budget of calls of the whole run, resumes included; null: no limit")
    ] = None
    max_tokens: Annotated[int, Range(ge=1), Doc("limit of one reply, in tokens")] = 8192
    parallel: Annotated[int, Range(ge=1, le=256), Doc("refinements at once")] = 16


@dataclass
class GeneralConfig:
    """Existing conversations that are merged into the dataset."""

    name: Annotated[str, NonEmpty(), Doc("their domain, unless a row has the column `domain`")] = "???"
    kind: Annotated[Literal["jsonl", "parquet", "hf"], Doc("where rows come from")] = "jsonl"
    path: Annotated[str, NonEmpty(), Doc("file, folder or hub id")] = "???"
    split: Annotated[str, Doc("split of the data set")] = "train"
    columns: Annotated[dict[str, str], Doc("prompt, response, messages, ... -> column of the file")] = field(
        default_factory=dict
    )
    params: Annotated[dict[str, str], Doc("subset and revision of a Hugging Face data set")] = field(
        default_factory=dict
    )
    limit: Annotated[int | None, Range(ge=1), Doc("take the first N rows; null: all")] = None


@dataclass
class CurationConfig:
    """Which samples become the dataset, and in what form (`r1ray sample`); filters apply in the order of the keys."""

    correct: Annotated[list[ThresholdConfig], Doc("thresholds that make a sample right")] = field(
        default_factory=lambda: [ThresholdConfig()]
    )
    drop_truncated: Annotated[bool, Doc("drop samples that were cut at rollout.max_new_tokens")] = True
    style: Annotated[Literal["r1_zero", "think"] | None, Doc("format that a response must have; null: any")] = None
    min_language: Annotated[
        float, Range(ge=0, le=1), Doc("least share of the chain of thought in the target language")
    ] = 0.0
    language: Annotated[
        str | None, Doc("the target language; null: the row's target_language, else the question's language")
    ] = None
    max_repetition: Annotated[
        float | None,
        Range(ge=0, le=1),
        Doc("largest share of n-grams that occurred before in the response; null: any"),
    ] = None
    repetition_words: Annotated[int, Range(ge=1, le=64), Doc("words of such an n-gram")] = 8
    min_tokens: Annotated[int, Range(ge=0), Doc("shorter responses are dropped")] = 0
    max_tokens: Annotated[int | None, Range(ge=1), Doc("longer responses are dropped; null: no limit")] = None
    max_paragraph_words: Annotated[
        int | None, Range(ge=1), Doc("most words in one paragraph of the chain of thought; null: no limit")
    ] = None
    drop_code_blocks: Annotated[bool, Doc("drop samples with a code block in the chain of thought")] = False
    quality: Annotated[list[ThresholdConfig], Doc("further thresholds, e.g. on the part judge")] = field(
        default_factory=list
    )
    format: Annotated[
        Literal["as_is", "think_summary"],
        Doc("form of a response; think_summary: reasoning in think tags, then a summary (cold start)"),
    ] = "as_is"
    summary: Annotated[str, Doc("think_summary: the sentence for a response that is a bare answer")] = (
        "The answer is {answer}."
    )
    prompt_similarity: Annotated[
        float | None,
        Range(gt=0, le=1),
        Doc("responses to one prompt with this Jaccard similarity of word n-grams count as one; null: keep all"),
    ] = None
    dataset_similarity: Annotated[
        float | None,
        Range(gt=0, le=1),
        Doc("the same between conversations of the whole dataset (MinHash); null: keep all"),
    ] = None
    shingle_words: Annotated[int, Range(ge=1, le=64), Doc("words of such an n-gram")] = 5
    per_prompt: Annotated[int | None, Range(ge=1), Doc("samples kept of one prompt; null: all")] = None
    choice: Annotated[
        Literal["random", "shortest", "longest"],
        Doc("which samples of a prompt are kept; random: by a hash with run.seed"),
    ] = "random"
    quotas: Annotated[
        dict[str, int],
        Range(ge=0),
        Doc("domain -> most rows; the domain of a row is its column `domain`, else its source"),
    ] = field(default_factory=dict)
    refine: RefineConfig = field(default_factory=RefineConfig)
    general: Annotated[list[GeneralConfig], Doc("existing conversations to merge in")] = field(default_factory=list)
    direct_below_words: Annotated[
        int,
        Range(ge=0),
        Doc("prompts of `general` with fewer words, or with trivial: true, get no chain of thought"),
    ] = 0
    empty_thinking: Annotated[
        bool,
        Doc(
            "answers of `general` without reasoning begin with an empty think block; "
            "needed if the chat template opens one"
        ),
    ] = False
    rows_per_file: Annotated[int, Range(ge=1), Doc("rows of one file of the dataset")] = 10000
