"""What an engine on several hosts reserves."""

from __future__ import annotations

from r1ray.config.schema import Config
from r1ray.launch.gang import engine_bundles
from r1ray.preflight.fork_servers import engine_environment


def over_hosts() -> Config:
    config = Config()
    config.rollout.engine.tensor_parallel_size, config.rollout.engine.hosts = 4, 2
    return config


def test_every_process_has_a_gpu_and_the_first_bundle_the_workers_cpus() -> None:
    config = over_hosts()
    config.rollout.num_cpus, config.ray.rollout_resources = 3.0, {"rollout": 1.0}
    each = {"GPU": 1.0, "rollout": 0.5}  # those of one host's processes together are what one worker takes elsewhere
    assert engine_bundles(config) == [{**each, "CPU": 3.0}, each, each, each]


def test_the_groups_of_an_engine_leave_its_host_only_if_it_has_several() -> None:
    assert engine_environment(Config())["GLOO_SOCKET_IFNAME"] == "lo"
    config = over_hosts()
    assert "GLOO_SOCKET_IFNAME" not in engine_environment(config)
    config.sync.interface = "ens5"
    assert engine_environment(config)["GLOO_SOCKET_IFNAME"] == "ens5"
