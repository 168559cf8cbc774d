"""Fixtures of the integration tests: one Ray cluster, a random model, and the end of processes that a test leaves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes import all_ended

LONGEST = (
    "run_in_trouble",
    "kill_resume_exact",
    "recipe_kill",
    "sft",
    "loop",
    "tiny_base",
    "recipe",
)
"""Modules that take minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest modules: two run at a time, and one that came last would run alone."""
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def _commands_end_with_their_module() -> Iterator[None]:
    """Commands of a module's fixtures."""
    with all_ended():
        yield


@pytest.fixture(autouse=True)
def _commands_end_with_their_test() -> Iterator[None]:
    """Set up after the module's fixtures, whose commands keep running."""
    with all_ended():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random model of 230k parameters, which modules replace by one of their own."""
    from tests.integration.models import random_model, write_model

    return write_model(random_model(seed=3), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster, shut down after the last integration test."""
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at start-up
        ray.init(
            address="local",
            num_cpus=8,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()
