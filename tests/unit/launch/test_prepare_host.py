"""conf/clusters/prepare_host.sh on a host of stand-in commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.cluster_files import PROJECT, load

SCRIPT = PROJECT / "conf" / "clusters" / "prepare_host.sh"
NVIDIA, AMAZON = "0x10de", "0x1d0f"


class Host:
    """A host whose commands the test writes. All are there and succeed unless it says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in (
            "bwrap",
            "make",
            "rsync",
            "mount.nfs4",
            "python3",
            "nvidia-smi",
            "sysctl",
            "mountpoint",
            "apt-get",
        ):
            self.command(name, f'echo "{name} $*" >>{folder}/calls')
        self.command("sudo", 'exec "$@"')
        self.command("sysctl", f'echo "sysctl $*" >>{folder}/calls; [ "$1" != -n ] || echo 0')
        self.command("sleep", "")
        self.home = folder / "home"
        self.home.mkdir()

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def device(self, vendor: str) -> None:
        device = self.folder / "pci" / vendor
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")

    def efa(self) -> Path:
        self.device(AMAZON)
        tool = self.folder / "amazon" / "efa" / "bin" / "fi_info"
        tool.parent.mkdir(parents=True)
        tool.write_text("#!/bin/bash\necho provider: efa\n")
        tool.chmod(0o755)
        return self.folder / "amazon"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "R1RAY_PCI_DEVICES": str(self.folder / "pci"),
            "R1RAY_AMAZON": str(self.folder / "amazon"),
            "R1RAY_APT_TRIES": "3",
        }
        return subprocess.run(
            ["/bin/bash", str(SCRIPT), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def environment(self) -> str:
        return (self.home / ".r1ray_env").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def refusal(host: Host, *arguments: str) -> str:
    done = host.run(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_a_prepared_host_is_left_as_it_is_and_twice_is_like_once(host: Host) -> None:
    for _ in range(2):
        done = host.run()
        assert done.returncode == 0, done.stderr
    assert not [call for call in host.calls() if call.startswith(("apt-get", "mount "))]
    assert host.environment() == "export PATH=$HOME/r1ray/.venv/bin:$PATH RAY_AUTH_MODE=token\n"
    assert (host.home / ".bashrc").read_text() == ". ~/.r1ray_env\n"


def test_apt_is_repeated_while_another_holds_its_lock(host: Host) -> None:
    host.command("python3", "exit 1")  # without venv
    tries = (
        f'echo x >>{host.folder}/tries; [ "$(wc -l <{host.folder}/tries)" -ge 3 ] || {{ echo locked >&2; exit 100; }}'
    )
    host.command("apt-get", f'echo "apt-get $*" >>{host.folder}/calls; {tries}')
    assert host.run().returncode == 0
    assert [call for call in host.calls() if call.startswith("apt-get")] == [
        *["apt-get update -qq"] * 3,
        "apt-get -o DPkg::Lock::Timeout=60 install -qq -y python3-venv python3-dev",
    ]


def test_an_apt_that_never_succeeds_is_named(host: Host) -> None:
    host.command("python3", "exit 1")
    host.command("apt-get", "echo 'Could not get lock' >&2; exit 100")
    text = refusal(host)
    assert "'sudo apt-get update -qq' still fails after 3 attempts" in text
    assert "Could not get lock" in text


def test_user_namespaces_are_allowed_where_ubuntu_forbids_them(host: Host) -> None:
    host.command("sysctl", f'echo "sysctl $*" >>{host.folder}/calls; [ "$1" != -n ] || echo 1')
    host.command("tee", f"cat >{host.folder}/written")
    assert host.run().returncode == 0
    assert "sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0" in host.calls()
    assert (host.folder / "written").read_text() == "kernel.apparmor_restrict_unprivileged_userns = 0\n"


def test_a_host_that_cannot_make_a_sandbox_is_refused(host: Host) -> None:
    host.command("bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1")
    assert "bubblewrap cannot make a sandbox" in refusal(host)


@pytest.mark.parametrize("version", ["580.65.06", "595.10"])
def test_a_new_driver_is_accepted(host: Host, version: str) -> None:
    host.device(NVIDIA)
    host.command("nvidia-smi", f"echo {version}; echo {version}")
    assert host.run().returncode == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo 570.133.20", "its GPU driver is 570.133.20, r1ray's CUDA 13 packages need 580 or newer"),
        ("exit 9", "it has an NVIDIA GPU but no working driver"),
    ],
)
def test_an_old_or_missing_driver_is_refused(host: Host, body: str, message: str) -> None:
    host.device(NVIDIA)
    host.command("nvidia-smi", body)
    assert message in refusal(host)


def test_nccl_takes_efa_where_it_is(host: Host) -> None:
    amazon = host.efa()
    plugin = amazon / "ofi-nccl" / "lib" / "libnccl-net-ofi.so"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    assert host.run().returncode == 0
    found = subprocess.run(
        ["/bin/bash", "-eu", "-c", ". ~/.r1ray_env; env"],
        env={"HOME": str(host.home), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"FI_PROVIDER=efa", f"NCCL_NET_PLUGIN={plugin}", "NCCL_SOCKET_IFNAME=^docker,lo"} <= set(found)
    assert f"LD_LIBRARY_PATH={amazon}/efa/lib:{plugin.parent}" in found


def test_efa_without_the_plugin_is_refused_and_a_gpu_host_without_efa_says_so(host: Host) -> None:
    amazon = host.efa()
    assert "it has EFA but no aws-ofi-nccl plugin" in refusal(host)
    (amazon / "efa" / "bin" / "fi_info").unlink()
    host.device(NVIDIA)
    host.command("nvidia-smi", "echo 580.1")
    done = host.run()
    assert done.returncode == 0
    assert "has GPUs but no EFA" in done.stderr


def test_the_shared_folder_is_mounted_once_and_a_failure_is_named(host: Host) -> None:
    for name in ("mkdir", "chown", "mount"):
        host.command(name, f'echo "{name} $*" >>{host.folder}/calls')
    export = "fs-1.efs.us-west-2.amazonaws.com:/"
    assert host.run(export).returncode == 0
    assert not [call for call in host.calls() if call.startswith("mount ")], "it is mounted"
    host.command("mountpoint", "exit 32")
    assert host.run(export).returncode == 0
    (mount,) = [call for call in host.calls() if call.startswith("mount ")]
    assert mount.endswith(f"{export} /shared")
    host.command("mount", "exit 32")
    assert f"{export} cannot be mounted at /shared" in refusal(host, export)


def test_every_cluster_of_ray_up_prepares_its_hosts_with_it() -> None:
    for name in ("cluster.yaml", "conf/clusters/on-premise.yaml"):
        commands = " ; ".join(load(name)["setup_commands"])
        assert commands.index("conf/clusters/prepare_host.sh") < commands.index("make install GPU=1")
