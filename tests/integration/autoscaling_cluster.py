"""A Ray cluster whose autoscaler starts and ends nodes: real raylets of Ray's fake multi-node provider on this machine.

Ray's own AutoscalingCluster would do the same, but it stops every Ray of the machine. The provider is named by its
class, because Ray's wheel lacks the defaults of its short name.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.machines import kill, tree

RAY = str(Path(sys.executable).with_name("ray"))
HEAD_TYPE = "ray.head.default"
HEAD_ID = "f" * 51 + "00000"
"""The id that the provider expects the head's raylet to have; those of its nodes end in 00001, 00002, ..."""
START_S = 60.0

_EMPTY_LISTS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingCluster:
    """A running head."""

    port: int

    @property
    def address(self) -> str:
        """The head's, as host:port."""
        return f"127.0.0.1:{self.port}"

    def raylets(self) -> list[psutil.Process]:
        """The raylets of all nodes, the head's included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "raylet" and any(word.endswith(f":{self.port}") for word in process.cmdline()):
                    found.append(process)
        return found


@contextmanager
def autoscaling_cluster(
    folder: Path, *, head: dict[str, float], node: dict[str, float], most: int, idle_s: float
) -> Iterator[AutoscalingCluster]:
    """A head with the resources `head`, whose autoscaler (version 2) starts up to `most` nodes with the resources
    `node`.

    A node without work for `idle_s` ends. Environment variables of Ray's token authentication apply.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        cluster = AutoscalingCluster(port=probe.getsockname()[1])
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(_config(cluster.address, head, node, most, idle_s)))
    cpus, others = head["CPU"], {name: amount for name, amount in head.items() if name != "CPU"}
    temp = Path("/tmp") / f"r1-{secrets.token_hex(3)}"  # Ray's sockets lie there, and their paths must be short
    command = [RAY, "start", "--head", "--block", f"--port={cluster.port}", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1", f"--num-cpus={cpus:g}", "--resources", json.dumps(others)]
    command += ["--object-store-memory=100000000", "--disable-usage-stats", f"--temp-dir={temp}"]
    command += [f"--autoscaling-config={file}"]
    variables = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD_TYPE,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "head.log").open("wb") as log:
        started = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
    try:
        until = time.monotonic() + START_S
        while "--block" not in (folder / "head.log").read_text():  # Ray says so once its processes run
            assert started.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < until, f"the head has not started within {START_S:g} s"
            time.sleep(0.1)
        yield cluster
    finally:
        processes = tree(started.pid)
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(30.0)
        kill([*processes, *(process for raylet in cluster.raylets() for process in tree(raylet.pid))])
        started.wait(10.0)
        shutil.rmtree(temp, ignore_errors=True)


def _config(address: str, head: dict[str, float], node: dict[str, float], most: int, idle_s: float) -> dict[str, Any]:
    return {
        "cluster_name": "r1ray-test",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_s / 60.0,
        "docker": {},
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": address,
        },
        "auth": {},
        "available_node_types": {
            HEAD_TYPE: {"resources": head, "node_config": {}, "max_workers": 0},
            "rollout": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": HEAD_TYPE,
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in _EMPTY_LISTS},
    }
