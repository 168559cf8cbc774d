"""YAML by libyaml, ten times as fast as the code in Python that PyYAML takes by default."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """Return the plain values of a YAML document. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def write_yaml(value: Any, **layout: Any) -> str:
    """Return `value` as YAML with the keys in their order; tuples are lists. `layout`: see `yaml.dump`."""
    text = yaml.dump(value, Dumper=_Dumper, **{"sort_keys": False, "allow_unicode": True, **layout})
    assert isinstance(text, str)
    return text


class _Dumper(yaml.CSafeDumper):
    """Quotes each string that OmegaConf would not read as one: to it 1e3 is a number, to PyYAML a string.

    Writes no aliases.
    """

    def ignore_aliases(self, data: Any) -> bool:
        """See yaml.Dumper."""
        return True


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.Node:
    quoted = _is_number(text) or text in ("y", "Y", "n", "N")  # booleans, says YAML 1.1
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(tuple, lambda dumper, values: dumper.represent_list(values))
