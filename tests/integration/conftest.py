"""One Ray cluster for all integration tests, and an end to what a test leaves running."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from tests.integration.processes import all_ended


@pytest.fixture(scope="module", autouse=True)
def _commands_end_with_their_module() -> Iterator[None]:
    """Those of a module's fixtures."""
    with all_ended():
        yield


@pytest.fixture(autouse=True)
def _commands_end_with_their_test() -> Iterator[None]:
    """Set up behind the module's fixtures, whose commands go on."""
    with all_ended():
        yield


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """Gone before the unit tests, some of which measure time."""
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
