"""LiveCodeBench's private tests come out of their pickle, and nothing that the pickle says is carried out."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from r1ray.errors import DataError
from r1ray.evaluation.benchmarks import packed

TESTS = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "ü", "output": "x" * 300}]


def pack(thing: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(thing, protocol=protocol))).decode()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_text_in_a_pickle_is_read(protocol: int) -> None:
    assert packed.unpacked(pack(json.dumps(TESTS), protocol)) == TESTS


def test_plain_json_is_read() -> None:
    assert packed.unpacked(json.dumps(TESTS)) == TESTS


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_and_does_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only a text may be there"):
        packed.unpacked(pack(Evil(tmp_path / "made")))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("???", "neither JSON nor compressed"),
        (base64.b64encode(b"plain").decode(), "neither JSON nor compressed"),
        (base64.b64encode(zlib.compress(b"x" * 9)[:-3]).decode(), "cut off"),
        (base64.b64encode(zlib.compress(b"")).decode(), "cannot be read"),
        (pack(["a", "b"]), "pickle instruction"),
        (pack("not json"), "cannot be read"),
        (json.dumps([{"input": "1"}]), "no list of"),
        (pack(json.dumps({"input": "1", "output": "1"})), "no list of"),
    ],
)
def test_what_is_no_list_of_tests_is_refused(given: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        packed.unpacked(given)


def test_what_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_BYTES", 1 << 10)
    with pytest.raises(DataError, match="more than"):
        packed.unpacked(base64.b64encode(zlib.compress(b"0" * (1 << 20))).decode())
