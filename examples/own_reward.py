"""A reward of your own: prefer short chains of thought.

Use it by its import path, with its parameters (examples/own_reward.yaml):

    rewards:
      - {name: "own_reward:brevity", weight: 0.2, params: {free_words: 50}}
"""

from r1ray.rewards.answers.answer import chain_of_thought
from r1ray.rewards.base import Sample


def brevity(sample: Sample, free_words: int = 100) -> float:
    """Return 1.0 up to `free_words` words of thinking, and less beyond them: 0.5 at twice as many."""
    thinking = chain_of_thought(sample.response, opened=sample.opened)
    words = len(thinking.split())
    return min(1.0, free_words / max(1, words))
