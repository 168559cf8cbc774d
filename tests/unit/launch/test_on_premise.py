"""The commands of conf/clusters/on-premise.yaml that start Ray on a worker host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[3] / "conf" / "clusters" / "on-premise.yaml"
RAY = """#!/bin/sh
echo "$@" >> {calls}
[ "$1" = stop ] && exit 0
[ $(grep -c ^start {calls}) -gt {failures} ]
"""
"""A `ray` whose first `failures` starts fail."""


@pytest.mark.parametrize(("failures", "code", "starts"), [(0, 0, 1), (2, 0, 3), (3, 1, 3)])
def test_a_start_that_fails_is_repeated_twice(tmp_path: Path, failures: int, code: int, starts: int) -> None:
    *_, command = yaml.safe_load(FILE.read_text(encoding="utf-8"))["worker_start_ray_commands"]
    calls = tmp_path / "calls"
    for name, text in (
        ("ray", RAY.format(calls=calls, failures=failures)),
        ("hostname", "#!/bin/sh\necho 10.77.0.3\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_HEAD_IP": "10.77.0.1"}
    # as Ray runs it: `ulimit` alone may be forbidden here
    shell = ["bash", "-c", f"true && ({command.replace('ulimit -n 65536;', '')})"]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == code, done.stderr
    called = [line.split() for line in calls.read_text().splitlines()]
    assert [words[0] for words in called] == ["start", "stop"] * min(failures, 3) + ["start"] * (starts - failures)
    assert '--resources={"learner": 8}' in calls.read_text()
    assert "--node-ip-address=10.77.0.3" in called[0]
