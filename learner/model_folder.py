"""Weights of a model folder, read by rank 0, one parameter at a time.

A folder has the names and shapes of the Hugging Face checkpoint; transformers renames, fuses and splits them as it
does in `from_pretrained`, but here only what makes up one parameter of the model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.agreement import by_rank_0
from learner.block_fp8 import dequantized
from learner.checkpoint_format import persistent_buffers
from learner.empty import Weights, dtype_plan
from learner.group import Ranks
from r1ray.errors import ConfigError

NAMED = 3
"""Names of tensors in a message, at most."""

Fresh = Mapping[str, Callable[[Tensor], None]]
"""Names of tensors that the folder may lack, and what gives them values in place."""


def folder_weights(folder: Path, hf: Any, *, ranks: Ranks, fresh: Fresh) -> Weights:
    """Values of `hf`, an empty model, from its folder: on rank 0. The other ranks read nothing. A collective.

    Raises ConfigError, on every rank, if the folder lacks tensors that are not `fresh`.
    """
    readers: list[FolderReader] = []

    def used() -> list[int]:
        readers.append(FolderReader(folder, hf, fresh))
        return readers[0].used

    _set_conversions(hf, by_rank_0(ranks, folder, used))
    return readers[0].read if readers else no_values


def no_values(name: str) -> None:
    """Weights of a rank that gets them from rank 0."""


@dataclass(slots=True)
class _Part:
    """Tensors of the folder that transformers converts together, and the tensors of the model that they become."""

    targets: list[str]
    sources: list[str] = field(default_factory=list)


class FolderReader:
    """The tensors of a folder under the names of a model."""

    def __init__(self, folder: Path, hf: Any, fresh: Fresh) -> None:
        """Read the headers of the folder's files. Raises ConfigError if tensors of the model are missing."""
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # into a log file it writes control characters
        self._folder, self._fresh = folder, fresh
        self._model = copy.deepcopy(hf)  # of empty parameters: transformers sets values in it
        self._conversions = _conversions(hf)
        quantization = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
        self._slices = dequantized(_open(folder), folder, quantization)
        self._parts = self._find_parts()
        self._ready: dict[str, Tensor] = {}  # converted together with one that was read
        self._check_names()

    @property
    def used(self) -> list[int]:
        """Numbers of the conversions that the folder needs; an export reverts them."""
        return [i for i, conversion in enumerate(self._conversions) if conversion.was_used()]

    def read(self, name: str) -> Tensor:
        """The value of a parameter or persistent buffer, which `hf.` may precede, on the CPU. Read each once."""
        name = name.removeprefix("hf.")
        found = [self._value(key) for key in self._aliases(name) if key in self._parts]
        if not found:
            fresh = torch.empty_like(self._model.get_parameter(name), device="cpu", requires_grad=False)
            self._fresh[name](fresh)
            return fresh
        if any(not torch.equal(found[0], other) for other in found[1:]):
            raise ConfigError(
                f"model.path = {self._folder}: {' and '.join(self._aliases(name))} differ, but config.json ties them: "
                "set "
                "tie_word_embeddings to false in it"
            )
        return found[0]

    def _aliases(self, name: str) -> list[str]:
        """The names of a tensor that is tied."""
        ties = self._model.all_tied_weights_keys
        source = ties.get(name, name)
        return [source, *(target for target, other in ties.items() if other == source)]

    def _value(self, name: str) -> Tensor:
        if name not in self._ready:
            self._convert(self._parts[name])
        return self._ready.pop(name)

    def _convert(self, part: _Part) -> None:
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        empty = {name: self._model.get_parameter_or_buffer(name) for name in part.targets}
        dtype = self._model.config.dtype
        info, _ = convert_and_load_state_dict_in_model(
            self._model,
            {name: self._slices[name] for name in part.sources},
            LoadStateDictConfig(
                dtype=dtype, dtype_plan=dtype_plan(self._model, dtype), weight_mapping=self._conversions
            ),
        )
        for name, found, expected in info.mismatched_keys:
            raise ConfigError(
                f"model.path = {self._folder}: {name} has shape {tuple(found)}, expected {tuple(expected)} by "
                "config.json"
            )
        if info.conversion_errors:
            name, error = next(iter(info.conversion_errors.items()))
            raise ConfigError(f"model.path = {self._folder}: {name} cannot be made of {part.sources[0]}, ...: {error}")
        for name, tensor in empty.items():
            self._ready[name] = self._model.get_parameter_or_buffer(name).detach()
            owner, _, leaf = name.rpartition(".")
            setattr(self._model.get_submodule(owner), leaf, tensor)

    def _find_parts(self) -> dict[str, _Part]:
        """Name of a tensor of the model -> what it is made of."""
        from transformers.core_model_loading import WeightConverter, rename_source_key

        known = self._model.state_dict()
        converters = [c for c in self._conversions if isinstance(c, WeightConverter)]
        renamings = [c for c in self._conversions if not isinstance(c, WeightConverter)]
        parts: dict[str, _Part] = {}
        self._unused: list[str] = []
        for key in self._slices:
            name, pattern = rename_source_key(key, renamings, converters, self._model.base_model_prefix, known)
            if name not in known and key in known:
                name, pattern = key, None
            if name not in known:
                self._unused.append(key)
                continue
            if name not in parts:
                targets = [name]
                if pattern is not None:
                    converter = next(c for c in converters if pattern in c.source_patterns)
                    first = converter.target_patterns[0]
                    targets = [name.replace(first, target) for target in converter.target_patterns]
                part = _Part(targets)
                parts |= dict.fromkeys(targets, part)
            parts[name].sources.append(key)
        return parts

    def _check_names(self) -> None:
        model = self._model
        names = [*(n for n, _ in model.named_parameters()), *(n for n, _ in persistent_buffers(model))]
        missing = [n for n in names if n not in self._fresh and not any(a in self._parts for a in self._aliases(n))]
        if missing:
            raise ConfigError(
                f"model.path = {self._folder} lacks {len(missing)} tensors of a {type(model).__name__}: "
                f"{_some(missing)}: "
                "complete the download"
            )
        if self._unused:
            print(f"learner: tensors of {self._folder} that training does not use: {_some(self._unused)}", flush=True)


def _conversions(hf: Any) -> list[Any]:
    from transformers.conversion_mapping import get_model_conversion_mapping

    conversions: list[Any] = get_model_conversion_mapping(hf)
    return conversions


def _set_conversions(hf: Any, used: Iterable[int]) -> None:
    """Where transformers looks for the conversions to revert (`learner.checkpoint_format`)."""
    conversions = _conversions(hf)
    hf._weight_conversions = [conversions[i] for i in used]


def _open(folder: Path) -> dict[str, Any]:
    """Name -> slice of every tensor. `pread`: mapped pages would count as memory of this process."""
    from safetensors import SafetensorError, safe_open

    slices: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            file: Any = safe_open(path, framework="pt", device="cpu", backend="pread")
            slices |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as e:
            raise ConfigError(f"model.path = {folder}: {path.name} cannot be read, complete the download: {e}") from e
    return slices


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
