"""Which file system a path is on, from texts as /proc/self/mountinfo has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.util.filesystems import mount_of

HEAD = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard
23 22 0:21 / /proc rw,nosuid shared:2 - proc proc rw
24 22 0:22 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw,size=1024k
30 22 0:45 / /shared rw,relatime shared:20 - nfs4 fs-1.efs.amazonaws.com:/ rw,vers=4.1,addr=10.0.0.9
31 30 259:1 / /shared/scratch rw,relatime - xfs /dev/nvme1n1 rw
32 22 0:46 / /mnt/My\\040Files rw - cifs //server/My\\040Files rw
33 22 0:47 / /bucket rw - fuse.s3fs s3fs rw
34 22 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw
35 22 0:48 / /lustre/scratch rw - lustre 10.0.0.1@tcp:/work rw
36 22 0:49 / /host rw - 9p hostshare rw,trans=virtio
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/me/runs", "ext4", False),
        ("/", "ext4", False),
        ("/shared/runs/a", "nfs4", True),
        ("/shared", "nfs4", True),
        ("/sharedness", "ext4", False),
        ("/shared/scratch/ledgers", "xfs", False),
        ("/mnt/My Files/runs", "cifs", True),
        ("/bucket/runs", "fuse.s3fs", True),
        ("/media/stick/runs", "fuseblk", False),
        ("/lustre/scratch/me", "lustre", True),
        ("/host/runs", "9p", True),
        ("/dev/shm/runs", "tmpfs", False),
    ],
)
def test_the_deepest_mount_above_a_path_counts(path: str, kind: str, network: bool) -> None:
    mount = mount_of(Path(path), HEAD)
    assert mount is not None
    assert (mount.kind, mount.network) == (kind, network)


def test_a_later_mount_hides_those_below_it() -> None:
    hidden = HEAD + "40 22 0:60 / /shared rw - nfs other:/ rw\n41 22 0:61 / / rw - overlay overlay rw\n"
    mount = mount_of(Path("/shared/scratch/x"), HEAD + "40 22 0:60 / /shared rw - nfs other:/export rw\n")
    assert mount is not None
    assert str(mount) == "nfs (other:/export at /shared)"
    over = mount_of(Path("/shared/scratch/x"), hidden)
    assert over is not None
    assert (over.kind, over.volatile) == ("overlay", True)


def test_a_link_is_followed_and_escapes_are_decoded(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/shared/runs")
    mount = mount_of(link, HEAD)
    assert mount is not None
    assert mount.source == "fs-1.efs.amazonaws.com:/"
    files = mount_of(Path("/mnt/My Files"), HEAD)
    assert files is not None
    assert files.point == "/mnt/My Files"


def test_lines_of_another_form_are_skipped_and_the_kernel_of_this_machine_is_read() -> None:
    assert mount_of(Path("/x"), "nonsense\n1 2 3\n") is None
    assert mount_of(Path("/proc/self/status")) is not None
