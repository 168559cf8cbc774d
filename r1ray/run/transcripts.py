"""`r1ray inspect`: prompts and completions from a run's ledger, while the run is live or after it ended.

Thinking is dim, the answer is bold, and a line with the reward precedes each completion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from r1ray.codec import unpack_scored
from r1ray.errors import ConfigError
from r1ray.ledger import GroupRecord
from r1ray.ledger.records import GroupState
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import open_ledger
from r1ray.types import FOREIGN_POLICY, Completion, Score, ScoredGroup
from r1ray.util.formatting import number, printable
from r1ray.util.responses import Piece, pieces

STYLES = {"thinking": "dim", "answer": "bold", "plain": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions on the groups and completions to show; None: no condition."""

    step: int | None = None  # that the group is bound to
    state: GroupState | None = None
    min_reward: float | None = None  # of a completion, the sum that is trained on
    max_reward: float | None = None
    text: str | None = None  # in the prompt or a completion, ignoring case

    def shows(self, score: Score) -> bool:
        """Whether a completion with this score is shown."""
        low = self.min_reward is None or score.reward >= self.min_reward
        return low and (self.max_reward is None or score.reward <= self.max_reward)


def found(run_dir: Path, wanted: Filter, *, limit: int) -> Iterator[tuple[GroupRecord, ScoredGroup | None]]:
    """The first `limit` groups that match, each with its completions if the ledger has them.

    Raises ConfigError if `run_dir` is not a run folder or its run has no ledger yet.
    """
    folder = RunFolder.open(run_dir)
    with open_ledger(folder) as opened:
        if opened is None:
            raise ConfigError(f"{run_dir} has no ledger: the run has not leased its first prompt")
        ledger, _ = opened
        records = ledger.groups(
            step=wanted.step,
            state=wanted.state,
            min_reward=wanted.min_reward,
            max_reward=wanted.max_reward,
            text=wanted.text,
        )
        for record in islice(records, limit):
            payload = ledger.payloads([record.group_id])[0] if record.has_payload else None
            yield record, None if payload is None else unpack_scored(payload)


def render(record: GroupRecord, group: ScoredGroup | None, wanted: Filter, *, completions: int) -> RenderableType:
    """One group: its state, its prompt, and up to `completions` of the completions that match."""
    parts: list[RenderableType] = [_headline(record)]
    if group is None:
        return Padding(Group(*parts, Text(_why_empty(record), style="yellow")), (0, 0, 1, 0))
    prompt = group.rollout.prompt
    for message in prompt.messages:
        parts.append(Text(printable(f"{message['role']}: {message['content']}"), style="cyan"))
    parts.append(Text(f"truth: {prompt.answer}", style="dim"))
    matching = [(c, s) for c, s in zip(group.rollout.completions, group.scores, strict=True) if wanted.shows(s)]
    for completion, score in matching[:completions]:
        parts.append(Padding(Group(_score_line(completion, score), styled(pieces(completion.text))), (1, 0, 0, 2)))
    hidden = len(group.scores) - min(len(matching), completions)
    if hidden:
        parts.append(Text(f"  {hidden} of {len(group.scores)} completions not shown", style="dim"))
    return Padding(Group(*parts), (0, 0, 1, 0))


def styled(parts: list[Piece]) -> Text:
    """The pieces of a response, one per paragraph."""
    return Text("\n").join(Text(printable(text), style=STYLES[kind]) for kind, text in parts)


def _headline(record: GroupRecord) -> Text:
    line = Text(f"group {record.group_id}", style="bold")
    facts = [record.state if record.step is None else f"{record.state}, step {record.step}", record.worker_id]
    if record.summary is not None:
        facts.append(policies(record.summary.min_policy_version, record.summary.max_policy_version))
    if record.reason is not None:
        facts.append(f"dropped: {record.reason}")
    return line.append("  " + "  ".join(facts), style="not bold dim")


def policies(low: int, high: int) -> str:
    """The versions of the policies that sampled a group."""
    if low == FOREIGN_POLICY:
        return "policy of another run"
    return f"policy {low}" if low == high else f"policies {low} to {high}"


def _why_empty(record: GroupRecord) -> str:
    if record.scored_at is not None:
        return "its completions were pruned (queue.keep_payload_steps)"
    return "not scored yet" if record.state == "leased" else "it was never scored"


def _score_line(completion: Completion, score: Score) -> Text:
    line = Text(f"reward {number(score.reward)}", style="green" if score.reward > 0 else "red")
    facts = [f"{name} {number(value)}" for name, value in score.parts.items()]
    facts += [f"{len(completion.token_ids)} tokens", completion.finish_reason]
    if score.error is not None:
        facts.append(f"could not be scored: {score.error}")
    return line.append("  " + "  ".join(facts), style="dim")
