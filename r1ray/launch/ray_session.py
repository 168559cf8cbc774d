"""Join or start Ray, and look at a running cluster without joining it.

The only file that uses private parts of Ray (2.60), each because there is no public call:
    services.canonicalize_bootstrap_address   the address that `auto` means; Ray finds it only by connecting
    authentication, grpc_utils, generated     one request to a cluster's head: `ray.init` repeats a refused token for
                                              20 s, prints a line each second, and may abort the process
    services.resolve_ip_for_localhost         `ray.init` replaces a loopback address by that of the network, and with it
                                              Ray's agent and metrics listen on all addresses
    node.Node.start_*                         `ray.init` has no option to leave out three processes of a local cluster
    utils.set_sigterm_handler                 `ray.init` replaces our handler by one that ends the process during its start
    worker.global_worker.gcs_client           the one way to drain a node beside the hidden command `ray drain-node`
    local.config.LOCAL_CLUSTER_NODE_TYPE      the type that `ray up` gives to the hosts of provider `local`
    worker.print_to_stdstream                 Ray prints deaths of workers into the driver's terminal
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
import ray
from ray._private import node as ray_node
from ray._private import services
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.authentication import authentication_token_setup as token_setup
from ray._private.grpc_utils import init_grpc_channel
from ray.autoscaler._private.local.config import LOCAL_CLUSTER_NODE_TYPE
from ray.core.generated import autoscaler_pb2, gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError, RpcError

from r1ray.errors import ConfigError, InfrastructureError
from r1ray.launch.deadline import ends_within
from r1ray.preflight.capacity import ClusterNodes
from r1ray.preflight.doors import call_is_refused
from r1ray.telemetry.logs import LogTarget, json_line
from r1ray.util.network import LOOPBACK

END_S = 60.0
"""Deadline of `ray.shutdown`."""

PROBE_S = 5.0
"""Deadline of one request to the head of a cluster."""

START_S = 150.0
"""Deadline of `ray.init`, beyond those of its parts that have one: 30 s for the head, 20 for its client,
30 for the node.
"""

NO_SPARE_WORKERS = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}
"""Settings of a local cluster: else it starts a Python process for each CPU, of which none has our actors' environment.
"""

UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
"""What Ray starts on its first node that a local cluster does not need: it has no autoscaler and no dashboard, and Ray
prints no worker's output. Each is a Python process that imports Ray; the first and the last one listen on a port.
"""

AUTH_FIX = (
    "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN (or its file in RAY_AUTH_TOKEN_PATH, by default "
    "~/.ray/auth_token)"
)


def look_at(address: str) -> ClusterNodes:
    """The nodes of the cluster at `ray.address`.

    Raises ConfigError unless a Ray cluster answers there within PROBE_S and accepts this process's token.
    """
    found = _resolve(address)
    try:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(init_grpc_channel(found))
        reply = stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=PROBE_S)
    except AuthenticationError as e:  # token authentication is on, and there is no token here
        raise ConfigError(f"ray.address = {address!r}: {first_sentence(e.message)}; {AUTH_FIX}") from e
    except grpc.RpcError as e:
        raise ConfigError(_refusal(address, found, e)) from e
    alive = [node for node in reply.node_info_list if node.state == gcs_pb2.GcsNodeInfo.ALIVE]
    return ClusterNodes(
        nodes=tuple(dict(node.resources_total) for node in alive),
        # `ray up` and KubeRay name the type of each node that they launch; existing hosts are all that there will ever
        # be.
        autoscaled=any(node.node_type_name not in ("", LOCAL_CLUSTER_NODE_TYPE) for node in alive),
    )


def demands_token(address: str) -> bool | None:
    """Whether the cluster at `address`, which `look_at` has reached, refuses a request without a token;
    None: it is silent.
    """
    return call_is_refused(_resolve(address), "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")


def use_token() -> None:
    """Send this machine's token, if it has one and RAY_AUTH_MODE is not set, as `ray.init(address="auto")` does.

    Without Ray's line on standard error, which advises to turn the token off.
    """
    logging.getLogger(token_setup.__name__).setLevel(logging.ERROR)
    token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _resolve(address: str) -> str:
    """The host:port that `ray.address` means. Raises ConfigError if no cluster is found or it has another form."""
    if address == "auto":
        try:
            found = services.canonicalize_bootstrap_address("auto")
        except (ConnectionError, ValueError) as e:
            raise ConfigError(
                "ray.address = 'auto', but no Ray runs on this machine: `ray start --head`, or give host:port"
            ) from e
        use_token()
        return str(found)
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"ray.address = {address!r}: expected host:port of a cluster's head, auto, or null for a cluster of its own"
        )
    return address


def _refusal(address: str, found: str, error: grpc.RpcError) -> str:
    where = f"ray.address = {address!r}" + (f" (here {found})" if address != found else "")
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return f"{where}: the cluster refuses this process: {error.details()}; {AUTH_FIX}"
    what = f"{error.code().name}: {error.details()}"
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        what = f"silent for {PROBE_S:g} s"
    return (
        f"{where}: no Ray cluster answers there ({what}); "
        "give host:port of its head, auto, or null for a cluster of its own"
    )


def first_sentence(text: str) -> str:
    """What happened, without Ray's own advice."""
    return text.strip().partition("\n")[0].partition(". ")[0].rstrip(".")


def connect(address: str | None, log: LogTarget, expired: Callable[[str], object] = str, **local: Any) -> None:
    """Join the cluster at `address`, or with None start one that ends with this process, and listens on loopback only.

    `local`: options of `ray.init` for the cluster that is started. `log`: the file for what Ray would print. If Ray
    hangs, this process ends by name after START_S; `expired` gets the message before. Raises ConfigError if Ray has no
    usable token or the cluster runs another version of Ray or Python, InfrastructureError if the cluster does not
    answer any more, or a local one does not start in time.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray_worker.print_to_stdstream = partial(_write, log)
    ray_utils.set_sigterm_handler = _keep_handler
    # "local": without it Ray joins what RAY_ADDRESS or an earlier `ray start` on this machine names.
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"address": "local", "_node_ip_address": LOOPBACK, "_system_config": NO_SPARE_WORKERS, **local}
        services.resolve_ip_for_localhost = _as_given
        for start in UNUSED:
            setattr(ray_node.Node, start, _start_nothing)
    # Ray's processes inherit the blocked signal: they outlive a closed terminal, and the driver can end the run itself.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with ends_within(START_S, partial(_hangs, address), expired):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except AuthenticationError as e:
        raise ConfigError(f"Ray cannot start: {first_sentence(e.message)}; {AUTH_FIX}") from e
    except ConnectionError as e:
        raise InfrastructureError(f"the Ray cluster at {address or 'this machine'} cannot be joined: {e}") from e
    except RuntimeError as e:
        if not str(e).startswith("Version mismatch"):
            raise InfrastructureError(f"the Ray cluster at {address or 'this machine'} cannot be joined: {e}") from e
        text = " ".join(str(e).split())
        raise ConfigError(f"ray.address = {address!r}: {text}; install the same versions on every node") from e
    except Exception as e:  # Ray gives its first node 30 s, and raises this class itself
        if "timed out during startup" not in str(e):
            raise
        raise InfrastructureError(_not_started("30 s")) from e
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def disconnect(expired: Callable[[str], object] = str) -> None:
    """Leave the cluster; the one that this process has started ends.

    If Ray hangs, this process ends by name after END_S.
    """
    with ends_within(
        END_S, lambda: f"Ray did not end within {END_S:g} s: its head or this node's raylet hangs", expired
    ):
        ray.shutdown()


def _not_started(within: str) -> str:
    load, cores = os.getloadavg()[0], os.cpu_count()
    return (
        f"Ray did not start on this machine within {within} (load {load:.1f} on {cores} cores): "
        "repeat when it is less busy"
    )


def _hangs(address: str | None) -> str:
    if address is None:
        return _not_started(f"{START_S:g} s")
    return (
        f"the Ray cluster at {address} could not be joined within {START_S:g} s: its head or this node's raylet hangs"
    )


def drain_node(node: str, seconds: float) -> str:
    """Have Ray place nothing more on a node (by Ray's id), which is taken away in `seconds`.

    Without it, Ray would place a worker's replacement on the resources that the worker gives back there, and it would
    be lost with the node. Returns why Ray does not do so; "" if it does.
    """
    client = ray_worker.global_worker.gcs_client
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    deadline_ms = int((time.time() + seconds) * 1000)
    try:
        accepted, why = client.drain_node(node, reason, "EC2 takes the spot instance back", deadline_ms)
    except RpcError as e:
        return f"Ray's head does not answer: {e}"
    return "" if accepted else f"Ray does not drain node {node}: {why}"


def _keep_handler(handler: Callable[[int, Any], None]) -> None:
    return None


def _start_nothing(node: object, **options: object) -> None:
    return None


def _as_given(address: str) -> str:
    return address


def _write(log: LogTarget, data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """Take the place of Ray's printing into the driver's terminal; the run's events report dead processes there."""
    log.path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line.rstrip() for line in data["lines"]]
    if log.as_json:
        made = [json_line(line, run_id=log.run_id, actor=log.actor, stream="stderr") for line in lines]
    else:
        made = [f"{time.strftime('%F %T')} {line}" for line in lines]
    with log.path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in made)
