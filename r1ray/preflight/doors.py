"""Ray's doors: the listeners through which programs can be run on a cluster, and whether they demand the token."""

from __future__ import annotations

import http.client

DASHBOARD = 8265
CLIENT_SERVER = 10001
DOORS = {DASHBOARD: "Ray's dashboard", CLIENT_SERVER: "Ray's client server"}
"""Port -> what Ray calls its listener."""

ANSWER_S = 5.0
"""Deadline of the request to one door."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Address that a listener has opened -> where to send the request: all addresses include loopback."""


def refuses_strangers(address: str, port: int) -> bool | None:
    """Whether the door at `address`, a port of DOORS, refuses a request without a token; None: nothing of Ray answers.

    The request changes nothing: it is for the list of jobs, or whether Ray runs.
    """
    host = _ANY.get(address, address)
    return _dashboard_refuses(host, port) if port == DASHBOARD else _client_server_refuses(host, port)


def _dashboard_refuses(host: str, port: int) -> bool | None:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/api/jobs/")
        return connection.getresponse().status in (401, 403)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _client_server_refuses(host: str, port: int) -> bool | None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return call_is_refused(target, "/ray.rpc.RayletDriver/ClusterInfo")  # empty: whether Ray is initialised


def call_is_refused(target: str, method: str) -> bool | None:
    """Whether a gRPC server (host:port) refuses `method` with an empty message for want of a token.

    None: it does not answer, or has no such method.
    """
    import grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=ANSWER_S)
        except grpc.RpcError as e:
            silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
            return None if e.code() in silent else bool(e.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False
