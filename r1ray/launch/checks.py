"""All checks before Ray starts, in one function that `--dry-run` and every start share.

environment -> memory -> run folder -> engine arguments -> room on the cluster -> its nodes -> losses -> rewards ->
sources
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from learner.plugins import load_advantage, load_policy_loss
from r1ray.config.problems import refuse
from r1ray.config.rules import SupervisedUse
from r1ray.config.schema import Config
from r1ray.config.uses import processes, replays
from r1ray.curation.dataset import check_inputs
from r1ray.data.source import open_prompts
from r1ray.data.tokenizer import Tokenizer, load_tokenizer
from r1ray.evaluation.benchmarks.prepare import Prepared
from r1ray.launch.node_checks import check_nodes
from r1ray.models.folder import read_shape
from r1ray.preflight.capacity import ClusterNodes, capacity_problems
from r1ray.preflight.engine_keys import engine_key_problems
from r1ray.preflight.placement import Plan
from r1ray.preflight.prepare import Preparation
from r1ray.preflight.replay import check_recorded_data
from r1ray.preflight.sources import batch_problems, judging_problems, tokenizer_problems
from r1ray.rewards.scorer import Scorer
from r1ray.run.trackers import check_wandb

TRUSTED = (
    "model.trust_remote_code: Python code in {path} runs in the learner and in the engines, with the rights of this run"
)


def check_start(
    preparation: Preparation,
    cluster: ClusterNodes | None,
    *,
    fresh: bool = False,
    benchmarks: Sequence[Prepared] = (),
    planned: Callable[[Plan], None] | None = None,
) -> dict[str, Any]:
    """Check everything that a run of `preparation` needs. Returns the facts of the rows of supervised training.

    `cluster`: that `ray.address` names, if it names one. `benchmarks`: the problems of `r1ray eval`, whose files are
    not written yet. `planned` gets the plan as soon as it is made. Raises ConfigError, or IntegrityError for a model
    folder or run that is damaged.
    """
    use, origins = preparation.use, preparation.loaded.provenance
    with _model(preparation) as model, _written(preparation, benchmarks) as readable:
        config = readable.loaded.config
        plan = readable.check(model, planned)
        readable.check_folder(fresh=fresh)
        check_wandb(config.logging.wandb_project)
        recorded = readable.survey(model)
        warnings = [TRUSTED.format(path=config.model.path)] if config.model.trust_remote_code else []
        warnings += [recorded.warning] if recorded is not None and recorded.warning else []
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        problems = [*engine_key_problems(config)] if "rollout" in processes(config, use) else []
        if cluster is not None:
            problems += capacity_problems(config, plan.roles, cluster, resumed=preparation.existing is not None)
        refuse(problems, origins)
        if cluster is not None:
            check_nodes(config, use, plan.roles, model=preparation.model_is_built)
        if use == "train":
            load_policy_loss(config.algorithm.loss)
            load_advantage(config.algorithm.advantage)
        tokenizer = load_tokenizer(str(model))
        refuse([*tokenizer_problems(config, tokenizer, read_shape(model))], origins)
        if use == "sft" or use == "reward-model":
            found = _supervised_rows(config, use, tokenizer)
            readable.check_resumed(found)
            return found
        if use == "sample":
            check_inputs(config)
        if replays(config, use):
            check_recorded_data(readable.loaded)
            readable.check_resumed()
            return {}
        _rewards(config)
        prompts = open_prompts(config, tokenizer, use)
        refuse([*batch_problems(config, prompts), *judging_problems(config, prompts, use)], origins)
        readable.check_resumed()
    return {}


@contextmanager
def _model(preparation: Preparation) -> Iterator[Path]:
    """The folder of the model; for the embedded model that is not built yet, one with untrained weights.

    Its tokenizer and its sizes, which the checks read, are those of the built one.
    """
    if preparation.model_is_built:
        yield Path(preparation.loaded.config.model.path)
        return
    from learner.tiny.build import write_untrained

    with tempfile.TemporaryDirectory(prefix="r1ray-tiny-") as scratch:
        folder = Path(scratch) / "tiny"
        write_untrained(folder)
        yield folder


def _rewards(config: Config) -> None:
    """Build every reward, and try what scoring needs on this machine."""
    sources = {s.name: s.rewards for s in (*config.data.evaluation, *config.data.train)}
    scorer = Scorer(config.rewards, config.reward_worker, source_rewards=sources)
    try:
        scorer.check()
    finally:
        scorer.close()


@contextmanager
def _written(preparation: Preparation, benchmarks: Sequence[Prepared]) -> Iterator[Preparation]:
    """The preparation with the problems of its benchmarks in a folder of their own, where sources can read them."""
    if not benchmarks:
        yield preparation
        return
    loaded = preparation.loaded
    with tempfile.TemporaryDirectory(prefix="r1ray-eval-") as scratch:
        for benchmark in benchmarks:
            benchmark.write(Path(scratch))
        rewards = {source.name: source.rewards for source in loaded.config.data.evaluation}
        sources = [replace(b.source(Path(scratch)), rewards=rewards[b.name]) for b in benchmarks]
        config = replace(loaded.config, data=replace(loaded.config.data, evaluation=sources))
        yield replace(preparation, loaded=replace(loaded, config=config))


def _supervised_rows(config: Config, use: SupervisedUse, tokenizer: Tokenizer) -> dict[str, Any]:
    """Read every row, and count the steps. Returns `SupervisedData.facts`."""
    from learner.examples import SupervisedData, total_steps
    from learner.preference import rows as preferences
    from learner.sft import data as conversations

    data: SupervisedData[Any] = (
        conversations.read_data(config, tokenizer) if use == "sft" else preferences.read_data(config, tokenizer)
    )
    total_steps(config, use, len(data.train))
    return data.facts()
