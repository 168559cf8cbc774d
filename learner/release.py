"""Export a policy as a folder to publish: weights in a requested dtype, tokenizer files unchanged, nothing else.

It converts tensor by tensor, so a model may be larger than the memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.empty import empty_model
from learner.files import write_aside
from learner.lora import merge_stored
from learner.shard_file import read_tensors
from learner.shards import write_shards
from r1ray.config.schema import ModelConfig
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.checkpoints import TRAINER, find_latest
from r1ray.util.files import read_json

CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
)
"""Files of a model folder that are copied; README.md is new."""

SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
"""Sampling parameters of R1's model card, for generation_config.json: the defaults of vLLM and transformers."""

READABLE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Location of weights and of the configuration and tokenizer that belong to them."""

    folder: Path  # a model folder, or a checkpoint of the learner
    model: Path  # configuration and tokenizer
    checkpoint: bool
    dtype: str  # as stored, or as the run computed

    @property
    def name(self) -> str:
        """For the model card."""
        return f"checkpoint {self.folder.name}" if self.checkpoint else "final weights"


def find_weights(model: Path, *, checkpoints: Path | None, base: str | None, dtype: str | None) -> Weights:
    """The weights of `model` if it has any, else of the newest complete checkpoint in `checkpoints`.

    `base` and `dtype` are the run's `model.path` and `model.dtype`, which a checkpoint needs. Raises ConfigError if
    there is neither.
    """
    if (model / "config.json").exists():
        config = read_json(model / "config.json")
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        return Weights(folder=model, model=model, checkpoint=False, dtype=stored)
    found = find_latest(checkpoints) if checkpoints is not None and checkpoints.is_dir() else None
    if found is None or found.path is None or base is None:
        raise ConfigError(f"there is no model in {model}, and no checkpoint to make one of: let the run go on")
    if not (Path(base) / "config.json").exists():
        raise ConfigError(
            f"the run's model.path = {base} is gone, and with it the configuration and tokenizer that "
            f"{found.path} needs: put it back, or let the run write its final model"
        )
    return Weights(folder=found.path, model=Path(base), checkpoint=True, dtype=dtype or "float32")


def write_release(
    weights: Weights, target: Path, *, dtype: str, chat_template: str | None, card: Callable[[Path], str]
) -> None:
    """Write the model folder `target`, completely or not at all.

    `dtype`: name of a torch dtype. `chat_template` replaces the tokenizer's own. `card` returns README.md; it is called
    with the folder when everything else is in it. Raises IntegrityError if there are no weights, and DiskFull.
    """
    with write_aside(target) as folder:
        for path in sorted(weights.model.iterdir()):
            if path.is_file() and any(path.match(pattern) for pattern in CARRIED):
                shutil.copyfile(path, folder / path.name)
        index = write_shards(folder, "model", _converted(weights, getattr(torch, dtype)))
        if not index:
            raise IntegrityError(f"{weights.folder} holds no weights")
        _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
        dropped = ("torch_dtype", "quantization_config")  # no weight is quantized
        config = {k: v for k, v in read_json(folder / "config.json").items() if k not in dropped}
        _write_json(folder / "config.json", {**config, "dtype": dtype})
        generation = folder / "generation_config.json"
        _write_json(generation, {**(read_json(generation) if generation.exists() else {}), **SAMPLING})
        if chat_template is not None:
            (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        (folder / "README.md").write_text(card(folder), encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(READABLE)  # safetensors writes files that only their owner may read


def _converted(weights: Weights, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in _stored(weights):
        yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor


def _stored(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    if weights.checkpoint:
        model = read_json(weights.folder / TRAINER)["config"]["model"]
        lora = model.get("lora", {})  # older ones have none
        if lora.get("rank") is None:
            yield from _whole(weights, trust_remote_code=model.get("trust_remote_code", False))
        else:
            yield from merge_stored(_files(weights.model), dict(_trained(weights.folder)), lora)
        return
    yield from _files(weights.folder)


def _whole(weights: Weights, *, trust_remote_code: bool) -> Iterator[tuple[str, Tensor]]:
    """The weights in a checkpoint, and the buffers of the model that it began with,
    under the names of a model folder.
    """
    from transformers import AutoModelForCausalLM

    made_of = ModelConfig(path=str(weights.model), dtype=weights.dtype, trust_remote_code=trust_remote_code)  # type: ignore[arg-type]
    what = "a causal language model"
    hf = empty_model(AutoModelForCausalLM, made_of, weights.model, attention="eager", kind=what)
    stored = CheckpointFormat(hf)
    for name, tensor in _trained(weights.folder):
        yield from stored.tensors(name, tensor)
    buffers = {key for name, buffer in persistent_buffers(hf) for key, _ in stored.tensors(name, buffer)}
    for name, tensor in _files(weights.model) if buffers else ():
        if name in buffers:
            yield name, tensor


def _trained(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights in a checkpoint, under their names in the model."""
    for key, tensor in read_tensors(sorted(checkpoint.glob("state-*.safetensors")), "weight/"):
        yield key.removeprefix("weight/").removeprefix("hf."), tensor


def _files(model: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
