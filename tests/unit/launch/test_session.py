"""The frame of a run: a start that fails can be repeated, and the outcome is recorded whatever it is."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.load import LoadedConfig, load_config
from r1ray.errors import InfrastructureError
from r1ray.launch.cluster import Cluster
from r1ray.launch.session import open_session
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.metrics import read_events
from tests.unit.model_folder import write_model

IDENTITY = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")


@pytest.fixture(autouse=True)
def ray_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    calls: list[str] = []
    monkeypatch.setattr(Cluster, "connect", lambda self, use, expired: calls.append(f"connect {use}"))
    monkeypatch.setattr("ray.shutdown", lambda: calls.append("shutdown"))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    return load_config(["tiny"], [f"model.path={write_model(tmp_path / 'model')}", f"run.dir={tmp_path / 'run'}"])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY) as made:
        yield made


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_start_that_found_no_room_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedConfig, folder: RunFolder
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("r1ray.launch.session.MetricsWriter", _no_room)
        with pytest.raises(OSError, match="No space"), open_session(loaded, folder, "train"):
            pass
    folder.release()
    with RunFolder.create(folder.path, "run: {}\n", IDENTITY) as again, open_session(loaded, again, "train"):
        assert [event["kind"] for event in read_events(again.path)] == ["started"]


def test_a_resume_that_found_no_room_keeps_its_run(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedConfig, folder: RunFolder
) -> None:
    with open_session(loaded, folder, "train"):
        pass
    monkeypatch.setattr("r1ray.launch.session.MetricsWriter", _no_room)
    with pytest.raises(OSError, match="No space"), open_session(loaded, folder, "train"):
        pass
    assert RunFolder.open(folder.path).identity() == IDENTITY


def _finished() -> bool:
    return True


def _stopped() -> bool:
    return False


def _interrupted() -> bool:
    raise KeyboardInterrupt


def _failed() -> bool:
    raise InfrastructureError("no worker is left")


@pytest.mark.parametrize(
    ("job", "raised", "events", "told"),
    [
        (_finished, None, [("finished", {})], ("finished", "")),
        (_stopped, None, [], ("interrupted", "")),
        (
            _interrupted,
            KeyboardInterrupt,
            [("interrupted", {"reason": "at once, by request"})],
            ("interrupted", "at once"),
        ),
        (
            _failed,
            InfrastructureError,
            [("failed", {"error": "InfrastructureError", "message": "no worker is left"})],
            ("failed", "InfrastructureError: no worker is left"),
        ),
    ],
)  # fmt: skip
def test_the_outcome_is_recorded_before_ray_ends(
    job: Callable[[], bool],
    raised: type[BaseException] | None,
    events: list[tuple[str, dict[str, Any]]],
    told: tuple[str, str],
    loaded: LoadedConfig,
    folder: RunFolder,
    ray_calls: list[str],
) -> None:
    def ended(state: str, message: str) -> None:
        ray_calls.append(f"{state}|{message}")

    with open_session(loaded, folder, "sample", resume=False) as session:
        if raised is None:
            assert session.run(job, ended) is job()
        else:
            with pytest.raises(raised):
                session.run(job, ended)
    assert ray_calls == ["connect sample", "|".join(told), "shutdown"]
    started, *later = read_events(folder.path)
    assert (started["kind"], started["resume"]) == ("started", False)
    assert [(e["kind"], {k: v for k, v in e.items() if k not in ("kind", "time")}) for e in later] == events


def test_a_cluster_that_cannot_be_joined_is_in_the_events(
    loaded: LoadedConfig, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(self: Cluster, use: str, expired: Callable[[str], object]) -> None:
        raise InfrastructureError("it is gone")

    monkeypatch.setattr(Cluster, "connect", connect)
    with pytest.raises(InfrastructureError, match="it is gone"), open_session(loaded, folder, "train"):
        pass
    assert [event["kind"] for event in read_events(folder.path)] == ["started", "failed"]
