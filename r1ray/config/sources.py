"""Find and read configuration files: overlays by path or name, the files that they extend, the line of every key."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
"""The overlays that come with r1ray. The folder is beside the packages, in a checkout and in an installation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One configuration file. Producer: `read_in_order`. Consumer: `load_config`."""

    name: str  # its path, relative to the working directory if it is inside
    content: dict[str, Any]  # without `extends`
    lines: dict[str, int]  # dotted key -> line, from 1

    def origin(self, key: str) -> str:
        """Return `file:line` of `key`, or of the nearest section above it: keys from a YAML merge have no line."""
        parts = key.split(".")
        known = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        line = next((self.lines[k] for k in known if k in self.lines), 1)
        return f"{self.name}:{line}"


def read_in_order(overlays: Sequence[str]) -> list[Source]:
    """Read base.yaml, then each overlay after the files that it extends. Each file is read once, the first time.

    Raises ConfigError for a file that is missing, is not a YAML map, or extends itself.
    """
    sources: list[Source] = []
    done: set[Path] = set()

    def visit(path: Path, chain: tuple[Path, ...]) -> None:
        if path in chain:
            raise ConfigError(f"{_shown(path)} extends itself: " + " -> ".join(_shown(p) for p in (*chain, path)))
        if path in done:
            return
        source, extends = read_file(path)
        for name in extends:
            visit(find_file(name, path.parent, f"{_shown(path)} extends"), (*chain, path))
        done.add(path)
        sources.append(source)

    visit(CONF_DIR / "base.yaml", ())
    for name in overlays:
        visit(find_file(name, Path.cwd(), "no configuration file"), ())
    return sources


def find_file(name: str, folder: Path, who: str) -> Path:
    """Return the path of the overlay `name`: from `folder`, else from conf/, each with and without .yaml.

    Raises ConfigError that begins with `who` and lists the overlays under conf/.
    """
    candidates = [root / f"{name}{suffix}" for root in (folder, CONF_DIR) for suffix in ("", ".yaml")]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    known = sorted(str(p.relative_to(CONF_DIR).with_suffix("")) for p in CONF_DIR.rglob("*.yaml"))
    raise ConfigError(f"{who} {name!r}: looked in {folder} and {CONF_DIR}; conf/ has {', '.join(known)}")


def read_file(path: Path) -> tuple[Source, list[str]]:
    """Read one file and the names of the files that it extends. Raises ConfigError if it is not a YAML map."""
    try:
        content, lines = _parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as e:
        raise ConfigError(f"{_shown(path)} cannot be read as YAML: {e}") from e
    if not isinstance(content, dict):
        raise ConfigError(f"{_shown(path)}: expected a map of sections, got a {type(content).__name__}")
    extends = content.get("extends", [])
    if not isinstance(extends, list) or not all(isinstance(e, str) for e in extends):
        raise ConfigError(f"{_shown(path)}: extends: expected a list of paths or names, e.g. [tiny], got {extends!r}")
    plain = {str(key): copy.deepcopy(value) for key, value in content.items() if key != "extends"}
    return Source(name=_shown(path), content=plain, lines=lines), extends


@functools.lru_cache(maxsize=32)
def _parse(text: str) -> tuple[Any, dict[str, int]]:
    """Return the content of a YAML file and the line of every key. Callers change neither: a recipe's
    stages and the tests read the same files again and again."""
    content = OmegaConf.to_container(OmegaConf.create(text) if text.strip() else OmegaConf.create(), resolve=False)
    lines: dict[str, int] = {}
    if (tree := yaml.compose(text, Loader=yaml.CSafeLoader)) is not None:
        _note_lines(tree, "", lines)
    return content, lines


def _note_lines(node: yaml.Node, key: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            full = f"{key}.{key_node.value}" if key else str(key_node.value)
            lines[full] = key_node.start_mark.line + 1
            _note_lines(value_node, full, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[f"{key}.{i}"] = item.start_mark.line + 1
            _note_lines(item, f"{key}.{i}", lines)


def _shown(path: Path) -> str:
    cwd = Path.cwd()
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
