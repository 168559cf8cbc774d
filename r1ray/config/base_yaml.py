"""conf/base.yaml, generated from the schema: `python -m r1ray.config.base_yaml` (or `make config`) writes it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

from r1ray.config.keys import Key, keys_of, section_doc
from r1ray.config.schema import Config
from r1ray.config.sources import CONF_DIR
from r1ray.util.yaml_text import write_yaml

PATH = CONF_DIR / "base.yaml"
_WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"  # keeps the line breaks out of a range
_HEAD = """\
# Every key of r1ray with its default. Do not edit: `make config` generates this file from
# r1ray/config/sections/. Overlays and key=value on the command line change the values; see
# docs/configuration.md. Units are in the names: _s seconds, _tokens, _bytes, _gib.
"""


def generate() -> str:
    """The text of conf/base.yaml: every key with its default, choices, range and documentation."""
    explained: dict[type, str] = {}
    parts = [_HEAD.rstrip()]
    for name, key in keys_of(Config).items():
        parts += ["", *_key_lines(name, key, name, explained)]
    return "\n".join(parts).replace(_NO_BREAK, " ") + "\n"


def _key_lines(name: str, key: Key, path: str, explained: dict[type, str]) -> Iterator[str]:
    """The lines of one key, or of a section with all its keys.

    `explained` has the dataclasses of list entries whose keys were written already, with the path of their list.
    """
    indent = "  " * path.count(".")
    if key.section is not None:
        yield from _comment(section_doc(key.section), indent)
        yield f"{indent}{name}:"
        for inner, inner_key in keys_of(key.section).items():
            yield from _key_lines(inner, inner_key, f"{path}.{inner}", explained)
        return
    line = f"{indent}{name}: {_in_yaml(key.default)}"
    entry = key.entry
    text = _documentation(key)
    if entry is None:
        yield from _with_comment(line, text, indent)
    elif entry in explained:
        yield from _with_comment(line, f"{text}; entries have the keys of {explained[entry]}", indent)
    else:
        explained[entry] = path
        yield from _comment(f"{text}; each entry has the keys", indent)
        for inner, inner_key in keys_of(entry).items():
            shown = f"{indent}#   {inner}: {_in_yaml(inner_key.default)}"
            yield from _with_comment(shown, _documentation(inner_key), f"{indent}#   ")
        yield line


def _documentation(key: Key) -> str:
    """The choices, the documentation and the range of a key, as one line."""
    choices = " | ".join([*key.choices, *(["module:function"] if key.importable else [])])
    bounds = str(key.range) if key.range is not None else ""
    unbroken = bounds.replace(" ", _NO_BREAK)
    return (f"{choices}: " if choices else "") + key.doc + (f" ({unbroken})" if bounds else "")


def _with_comment(line: str, text: str, indent: str) -> Iterator[str]:
    """`line` with a comment behind it, or above it if both are too long for one line."""
    if len(line) + 4 + len(text) <= _WIDTH:
        yield f"{line}  # {text}"
    else:
        yield from _comment(text, indent)
        yield line


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _in_yaml(value: Any) -> str:
    if value == "???":  # no default
        return "???"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        value = [asdict(item) if is_dataclass(item) and not isinstance(item, type) else item for item in value]
    text = write_yaml(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    PATH.write_text(generate(), encoding="utf-8")
    print(f"wrote {PATH}")
