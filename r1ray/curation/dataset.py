"""Curate the samples of a run folder of `r1ray sample` by its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from r1ray.config.schema import Config
from r1ray.curation.curate import Refinement, curate
from r1ray.curation.general import check_general
from r1ray.curation.refine import Refiner, endpoint_of
from r1ray.curation.review import Review
from r1ray.errors import ConfigError, DiskFull, IntegrityError
from r1ray.sampling.store import count_samples, read_samples
from r1ray.util.files import is_disk_full, read_json, write_atomic

SAMPLES = "samples"
JOURNAL = "refined.jsonl"
_WHOLE = "samples.json"


def check_inputs(config: Config) -> None:
    """Read all other inputs of curation. Raises ConfigError for a missing or malformed one."""
    check_general(config.curation)
    if config.curation.refine.url is not None:
        endpoint_of(config.curation.refine).check()


def mark_sampled(run_dir: Path) -> None:
    """Record that all prompts are sampled, and the number of samples."""
    write_atomic(run_dir / _WHOLE, json.dumps({"samples": count_samples(run_dir / SAMPLES)}).encode())


def is_sampled(run_dir: Path) -> bool:
    """Whether all prompts are sampled. Raises IntegrityError if samples are missing since then."""
    if not (run_dir / _WHOLE).exists():
        return False
    noted, there = read_json(run_dir / _WHOLE).get("samples"), count_samples(run_dir / SAMPLES)
    if noted != there:
        raise IntegrityError(
            f"{run_dir / SAMPLES} holds {there} samples, but {noted} were sampled: restore the shards, or remove "
            f"{_WHOLE} and "
            f"`r1ray sample --resume {run_dir}`"
        )
    return True


def make_dataset(
    run_dir: Path, config: Config, on_refined: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Write dataset/, dropped/ and the report again; returns the report.

    `on_refined` receives the number of refined texts. Raises what `curate` and `Refiner.refine` raise.
    """
    if not is_sampled(run_dir):
        raise ConfigError(f"{run_dir} is not sampled to the end: `r1ray sample --resume {run_dir}`")
    curation = config.curation
    with ExitStack() as stack:
        refinement = None
        if curation.refine.url is not None:
            refiner = stack.enter_context(closing(Refiner(curation.refine, run_dir / JOURNAL)))
            review = stack.enter_context(closing(Review(config)))
            refinement = Refinement(ask=partial(refiner.refine, progress=on_refined), review=review)
        try:
            return curate(
                run_dir,
                lambda: read_samples(run_dir / SAMPLES),
                curation,
                seed=config.run.seed,
                count_tokens=_counter(config.model.path),
                refinement=refinement,
            )
        except OSError as e:
            if not is_disk_full(e):
                raise
            again = f"make room, then `r1ray sample --resume {run_dir}`"
            raise DiskFull(f"there is no room left for the dataset in {run_dir}: {again}; the samples are whole") from e


def _counter(model_path: str) -> Callable[[str], int]:
    """Counts the tokens of a text. Loads the tokenizer at the first call, because most datasets need none."""
    loaded: list[Any] = []

    def count(text: str) -> int:
        if not loaded:
            from r1ray.data.tokenizer import load_tokenizer

            loaded.append(load_tokenizer(model_path))
        return len(loaded[0].encode(text, add_special_tokens=False))

    return count
