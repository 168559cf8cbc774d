"""Existing conversations to merge into the dataset: writing, factual questions, small talk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1ray.config.schema import CurationConfig, GeneralConfig, SourceConfig
from r1ray.curation.form import CLOSE, OPEN
from r1ray.data.conversations import CONVERSATION_FIELDS, Conversation, parse_conversation
from r1ray.data.grams import WORD
from r1ray.data.stores import open_rows
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.answer import answer_part
from r1ray.types import Message

EMPTY_THINKING = f"{OPEN}\n\n{CLOSE}\n\n"
"""Start of an answer without a chain of thought under `curation.empty_thinking`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralRow:
    """A conversation in the output format. Producer: `general_rows`. Consumer: `curate`."""

    source: str
    row_id: str
    domain: str
    prompt: tuple[Message, ...]  # ends with the user's message
    response: str

    @property
    def text(self) -> str:
        """The user's messages and the response."""
        asked = "\n".join(m["content"] for m in self.prompt if m["role"] == "user")
        return f"{asked}\n{self.response}"


def general_rows(config: CurationConfig) -> Iterator[GeneralRow]:
    """The conversations of `curation.general`, source by source. Raises ConfigError at the first malformed row."""
    for source in config.general:
        yield from _rows(source, config)


def check_general(config: CurationConfig) -> dict[str, int]:
    """Source -> number of rows, after reading all of them. Raises ConfigError for a malformed or empty source."""
    counts = {source.name: sum(1 for _ in _rows(source, config)) for source in config.general}
    for name, count in counts.items():
        if count == 0:
            raise ConfigError(f"the source {name} of curation.general has no rows")
    return counts


def _rows(source: GeneralConfig, config: CurationConfig) -> Iterator[GeneralRow]:
    where = SourceConfig(
        name=source.name,
        kind=source.kind,
        path=source.path,
        split=source.split,
        columns=source.columns,
        limit=source.limit,
    )
    store = open_rows(
        where,
        subset=source.params.get("subset"),
        revision=source.params.get("revision"),
        fields=CONVERSATION_FIELDS,
    )
    for number in range(len(store)):
        try:
            row = parse_conversation(store.raw(number), number, source.columns)
            response = _direct(row.response) if _trivial(row, config) else row.response
        except DataError as e:
            raise ConfigError(f"{store.place(number)}: {e}") from e
        yield GeneralRow(
            source=source.name,
            row_id=row.row_id,
            domain=row.domain or source.name,
            prompt=row.prompt,
            response=EMPTY_THINKING + response if config.empty_thinking and CLOSE not in response else response,
        )


def _trivial(row: Conversation, config: CurationConfig) -> bool:
    """Whether the prompt needs no chain of thought, as greetings do."""
    return row.trivial or len(WORD.findall(row.prompt[-1]["content"])) < config.direct_below_words


def _direct(response: str) -> str:
    """The answer without its chain of thought. Raises DataError if there is no answer."""
    answer = answer_part(response).strip()
    if not answer:
        raise DataError("the response to a trivial prompt is thinking without an answer")
    return answer
