"""Training prompts by index, for rollout workers.

    index --Interleave--> source, position --permute--> row --template--> text --tokenizer--> PromptTask

Every step is a pure function of the configuration and the files, so an index names the same prompt
in every process and after every restart. Only the index has to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1ray.config.schema import Config, DataConfig, SourceConfig
from r1ray.config.uses import Use
from r1ray.data.files import FileRows, compared_with
from r1ray.data.framing import Framer
from r1ray.data.order import Mixture, permute
from r1ray.data.problems import Problems, evaluation_prompts, prompt_task, sampling_prompts
from r1ray.data.synthetic import SyntheticRows
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError
from r1ray.types import PromptTask


class PromptSource:
    """The training prompts of a configuration, as an endless sequence.

    Example: a file of 3 rows, shuffled, the second longer than `max_prompt_tokens`. Then `dropped` is
    {"file": {"too_long": 1}}, `finite_length` is 2, indices 0 and 1 are rows 2 and 0 (epoch 0), and
    indices 2 and 3 are rows 0 and 2 (epoch 1).
    """

    def __init__(
        self,
        sources: Sequence[SourceConfig],
        data: DataConfig,
        tokenizer: Tokenizer,
        seed: int,
        prompts_per_step: int = 1,
    ) -> None:
        """Open and filter the sources. `prompts_per_step` converts `from_step` of a source into an index.

        Raises ConfigError for a source that is missing, malformed or empty after filtering.
        """
        framer = Framer(data, tokenizer)
        self._streams = [_Stream(source, data, framer, seed) for source in sources]
        self._mixture = Mixture([s.weight for s in sources], [s.from_step * prompts_per_step for s in sources])

    def task_at(self, index: int) -> PromptTask:
        """The prompt at `index` (from 0, unbounded)."""
        stream, position = self._mixture.locate(index)
        return self._streams[stream].task_at(index, position)

    @property
    def finite_length(self) -> int | None:
        """Number of prompts after filtering, all sources together; None if a source is an endless synthetic task."""
        lengths = [stream.rows.length for stream in self._streams]
        return None if None in lengths else sum(n for n in lengths if n is not None)

    def first(self, count: int) -> dict[str, list[PromptTask]]:
        """Source -> its first `count` prompts in the order of its rows, fewer if it has fewer."""
        return {stream.name: stream.first(count) for stream in self._streams}

    @property
    def dropped(self) -> dict[str, dict[str, int]]:
        """Source -> reason -> rows dropped; for synthetic sources, problems replaced so far in this process."""
        return {stream.name: dict(stream.rows.dropped) for stream in self._streams}


class _Stream:
    """One source in its own order: epoch after epoch, each with its own shuffle."""

    def __init__(self, source: SourceConfig, data: DataConfig, framer: Framer, seed: int) -> None:
        self.name = source.name
        self.rows: SyntheticRows | FileRows
        if source.kind == "synthetic":
            if source.split != "train":
                raise ConfigError(f"the source {source.name}: split: expected train for training, got {source.split}")
            self.rows = SyntheticRows(source, "train", framer, seed)
        else:
            self.rows = FileRows(source, framer, evaluation=compared_with(data))
        self._shuffle = data.shuffle
        self._seed = seed

    def task_at(self, index: int, position: int) -> PromptTask:
        epoch, place = (0, position) if self.rows.length is None else divmod(position, self.rows.length)
        if self._shuffle and self.rows.length is not None:
            place = permute(place, self.rows.length, f"{self._seed}/{self.name}/{epoch}")
        return prompt_task(self.name, self.rows.framed(place), index, epoch)

    def first(self, count: int) -> list[PromptTask]:
        """The first `count` prompts, unshuffled."""
        places = range(count if self.rows.length is None else min(count, self.rows.length))
        return [prompt_task(self.name, self.rows.framed(place), place, 0) for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts that a run reads. Producer: `open_prompts`. Consumers: rollout workers, the checks at start."""

    training: PromptSource | None  # None: the run trains nothing
    problems: dict[str, Problems]  # source -> what it is evaluated on, or sampled from


def open_prompts(config: Config, tokenizer: Tokenizer, use: Use) -> Prompts:
    """Open the sources that a run of the command `use` reads, and read each file once.

    Raises ConfigError for a source that is missing, malformed or left empty.
    """
    data, seed = config.data, config.run.seed
    if use == "sample":
        sampled = {s.name: sampling_prompts(s, data, tokenizer, seed) for s in data.train}
        return Prompts(training=None, problems=sampled)
    training = None
    if use == "train":
        training = PromptSource(data.train, data, tokenizer, seed, config.learner.groups_per_step)
    problems = {s.name: evaluation_prompts(s, data, tokenizer, seed) for s in data.evaluation}
    return Prompts(training=training, problems=problems)
