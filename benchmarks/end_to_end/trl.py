"""Train with TRL's GRPOTrainer what the configuration of a run of r1ray trains; a process of its own, on all cores.

    PYTHONPATH=.venv/trl python -m benchmarks.end_to_end.trl RUN/config.yaml SEQUENCES STEPS OUT.jsonl

Same model, prompts in the same order, rewards by r1ray's own Scorer, group size, sampling, optimiser and clipping.
One generation serves the steps of `learner.minibatches`, as in r1ray. At most SEQUENCES go through a backward pass
together. It trains STEPS steps. Each generation is a line of OUT:

    {"time": seconds since the epoch, "tokens": of its completions, "accuracy": share of right completions}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.data.source import PromptSource
from r1ray.data.tokenizer import load_tokenizer
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Scorer
from r1ray.types import PromptTask


class Rewards:
    """TRL's reward function: scores like the run of r1ray, and writes a line for each generation."""

    __name__ = "r1ray"

    def __init__(self, config: Config, tasks: list[PromptTask], tokenizer: Any, out: Path) -> None:
        self._scorer = Scorer([r for r in config.rewards if r.weight], config.reward_worker)
        self._tasks, self._tokenizer, self._out, self._limit = tasks, tokenizer, out, config.rollout.max_new_tokens

    def __call__(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], task: list[int], **_: Any
    ) -> list[float]:
        """The rewards of the completions; `task` has the index of the prompt of each."""
        pending = [
            self._scorer.begin(self._sample(self._tasks[index], text, ids))
            for index, text, ids in zip(task, completions, completion_ids, strict=True)
        ]
        scores = [one.result().score for one in pending]
        right = sum(score.parts["accuracy"] == 1.0 for score in scores) / len(scores)
        line = {"time": time.time(), "tokens": sum(map(len, completion_ids)), "accuracy": right}
        with self._out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return [score.reward for score in scores]

    def _sample(self, task: PromptTask, text: str, ids: list[int]) -> Sample:
        return Sample(
            response=text,
            answer=task.answer,
            prompt_id=task.prompt_id,
            task=task.task,
            messages=task.messages,
            meta=task.meta,
            tokens=len(ids),
            max_new_tokens=self._limit,
            finish_reason="stop" if ids and ids[-1] == self._tokenizer.eos_token_id else "length",
        )


def arguments(config: Config, sequences: int, steps: int, folder: str) -> dict[str, Any]:
    """The arguments of TRL's GRPOConfig that mean what the configuration means."""
    learner, rollout = config.learner, config.rollout
    o, step = learner.optimizer, learner.groups_per_step * rollout.group_size
    together = min(sequences, step // learner.minibatches)
    return {
        "output_dir": folder,
        "max_steps": steps * learner.minibatches,
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": step // learner.minibatches // together,
        "generation_batch_size": step,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_new_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "learning_rate": o.lr,
        "lr_scheduler_type": o.schedule,
        "warmup_steps": o.warmup_steps,
        "adam_beta1": o.betas[0],
        "adam_beta2": o.betas[1],
        "adam_epsilon": o.eps,
        "weight_decay": o.weight_decay,
        "max_grad_norm": o.gradient_clip,
        "beta": 0.0,
        "gradient_checkpointing": False,  # slower, and memory is not short
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.run.seed,
    }


def main(path: str, sequences: int, steps: int, out: Path) -> None:
    """Train the first `steps` steps of the run."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    config = load_config([path]).config
    torch.manual_seed(config.run.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(config.model.path)
    prompts = PromptSource(config.data.train, config.data, load_tokenizer(config.model.path), config.run.seed)
    tasks = [prompts.task_at(i) for i in range(steps * config.learner.groups_per_step)]
    texts = [tokenizer.decode(task.token_ids.tolist()) for task in tasks]
    for task, text in zip(tasks, texts, strict=True):
        if tokenizer(text, add_special_tokens=False)["input_ids"] != task.token_ids.tolist():
            raise SystemExit(f"the prompt {text!r} has other tokens in TRL than in r1ray: nothing can be compared")
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32),
        processing_class=tokenizer,
        reward_funcs=[Rewards(config, tasks, tokenizer, out)],
        args=GRPOConfig(**arguments(config, sequences, steps, str(out.parent / "trl"))),
        train_dataset=Dataset.from_dict({"prompt": texts, "task": list(range(len(texts)))}),
    )
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
