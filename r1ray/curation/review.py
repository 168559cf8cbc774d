"""Judge refined texts again, by the same thresholds and filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from r1ray.config.curation import TOTAL
from r1ray.config.schema import Config, CurationConfig, RewardConfig
from r1ray.curation.candidate import Candidate, meets
from r1ray.curation.filters import READABILITY, first_reason
from r1ray.errors import InfrastructureError
from r1ray.rewards.answers.answer import chain_of_thought, opening
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Scorer


class Review:
    """Judges refined texts by the rewards that `curation.correct` names."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for rewards that cannot be built."""
        used = _used(config)
        names = {reward.name for reward in used}
        sources = {
            s.name: None if s.rewards is None else [n for n in s.rewards if n in names] for s in config.data.train
        }
        self._curation = config.curation
        self._scorer = Scorer(used, config.reward_worker, source_rewards=sources)
        self._scorer.check()

    def reason(self, candidate: Candidate, text: str) -> str | None:
        """The reason why the text cannot replace the sample; None if it can.

        Raises InfrastructureError if a reward's model or endpoint does not answer.
        """
        changed = _with_text(candidate, text)
        if first_reason(changed, _reformed(self._curation), READABILITY) is not None:
            return "refine_unreadable"
        sample = changed.sample
        judged = self._scorer.begin(
            Sample(
                response=sample.response,
                answer=sample.answer,
                prompt_id=sample.prompt_id,
                task=sample.source,
                messages=tuple(sample.messages),
                meta=dict(sample.meta),
            )
        ).result()
        score = judged.score
        if judged.outage is not None:
            message = f"a refined response to {sample.prompt_id} could not be judged: {score.error}"
            raise InfrastructureError(message) from judged.outage
        if score.error is not None:
            return "refine_incorrect"
        scored = replace(sample, reward=score.reward, parts=score.parts)
        return None if meets(scored, self._curation.correct) else "refine_incorrect"

    def close(self) -> None:
        """Stop the processes of the rewards."""
        self._scorer.close()


def _used(config: Config) -> Sequence[RewardConfig]:
    """The rewards whose parts `curation.correct` names; all of them if it names the sum."""
    parts = {threshold.part for threshold in config.curation.correct}
    return [r for r in config.rewards if TOTAL in parts or r.name in parts or r.name.partition("/")[0] in parts]


def _with_text(candidate: Candidate, text: str) -> Candidate:
    """The candidate with another response. Rewards receive the text after the prompt's end, as before."""
    sample = replace(candidate.sample, response=text.removeprefix(opening(candidate.sample.meta)))
    return replace(candidate, sample=sample, text=text, thinking=chain_of_thought(text))


def _reformed(config: CurationConfig) -> CurationConfig:
    """The filters for reformatted text, in which a summary replaces the tags of the answer."""
    return replace(config, style="think") if config.style and config.format == "think_summary" else config
