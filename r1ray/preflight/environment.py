"""Check a configuration against the model folder, the data files and this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from r1ray.config.experts import DIVISIBLE, nearest_divisor
from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes
from r1ray.data.templates import CHAT_TEMPLATES
from r1ray.errors import ConfigError
from r1ray.models.folder import ModelShape, ends_with, has_chat_template, linear_layers, read_shape
from r1ray.util.machine import Machine

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_environment(config: Config, machine: Machine, use: Use = "train", model: Path | None = None) -> list[Problem]:
    """Find all problems with the model folder, the data files and, without `ray.address`, the machine.

    `model`: the folder to read instead of `model.path`.
    """
    found = [*check_model(config, model or Path(config.model.path), use), *_files(config)]
    if config.ray.address is None:  # the devices of other machines are not visible from here
        found += [*_devices(config, machine, use)]
    return found


def check_model(config: Config, folder: Path, use: Use) -> Iterator[Problem]:
    """Find the problems of a configuration with the model in `folder`: its own,
    or the ancestor of its own in a recipe.
    """
    try:
        shape = read_shape(folder)
    except ConfigError as e:
        yield problem(config, "model.path", str(e), "a folder in the Hugging Face format, or tiny")
        return
    yield from _context(config, shape)
    yield from _heads(config, shape, use)
    yield from _positions(config, shape, use)
    if config.model.lora.rank is not None and "learner" in processes(config, use):
        yield from _adapters(config, folder)
    if config.learner.expert_parallel > 1 and "learner" in processes(config, use):
        yield from _divided_experts(config, shape)
    if use == "train" and config.algorithm.routing != "ignore" and not shape.experts:
        message = "is about the routers of a mixture of experts, and this model has no experts"
        yield problem(config, "algorithm.routing", message, "ignore")
    framed = use != "reward-model"  # a reward model sees the model's own chat template, or plain text without one
    if framed and config.data.template in CHAT_TEMPLATES and not has_chat_template(folder):
        message = f"needs a chat template, and {folder} has none"
        yield problem(
            config, "data.template", message, "r1_zero or plain, or put a chat_template.jinja into the folder"
        )
    if shape.quantized and "learner" in processes(config, use):
        message = (
            f"has weights that are quantized ({shape.quantized}): the learner reads unquantized ones, or fp8 in blocks"
        )
        yield problem(config, "model.path", message, "a folder whose weights were converted to bfloat16")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        fix = f"a folder with one of {', '.join(TOKENIZER_FILES)}"
        yield problem(config, "model.path", "has no tokenizer", fix)


def _context(config: Config, shape: ModelShape) -> Iterator[Problem]:
    if config.model.max_length > shape.context:
        message = f"is over the model's context (max_position_embeddings = {shape.context})"
        yield problem(config, "model.max_length", message, f"at most {shape.context}")


def _heads(config: Config, shape: ModelShape, use: Use) -> Iterator[Problem]:
    parts = config.rollout.engine.tensor_parallel_size
    message = f"does not divide the model's {shape.heads} attention heads"
    if "rollout" in processes(config, use) and not shape.divides(parts):
        why = message if shape.heads % parts else (
            f"shards neither {shape.key_value_heads} key-value heads nor copies of them evenly, or leaves a rest of "
            f"{shape.intermediate} columns of the feed-forward layers"
        )  # fmt: skip
        fix = f"one of {', '.join(str(n) for n in range(1, shape.heads + 1) if shape.divides(n))}"
        yield problem(config, "rollout.engine.tensor_parallel_size", why, fix)
    learner, sizes = config.learner, [n for n in range(1, shape.heads + 1) if shape.heads % n == 0]
    if "learner" in processes(config, use) and shape.heads % learner.sequence_parallel:
        fits = [n for n in sizes if learner.ranks % n == 0]
        nearest = min(fits, key=lambda n: (abs(n - learner.sequence_parallel), n))
        fix = f"{nearest}, of {', '.join(map(str, fits))}, which also divide learner.ranks = {learner.ranks}"
        yield problem(config, "learner.sequence_parallel", message, fix)


def _divided_experts(config: Config, shape: ModelShape) -> Iterator[Problem]:
    """Find experts that the ranks cannot divide evenly, and models without any or of another kind."""
    key, n = "learner.expert_parallel", config.learner.expert_parallel
    if not shape.experts:
        yield problem(config, key, "divides experts, and this model has none", "1")
    elif shape.kind not in DIVISIBLE:
        message = f"divides experts in models of the types {', '.join(DIVISIBLE)}, got {shape.kind or 'none'}"
        yield problem(config, key, message, "1")
    elif shape.expert_count % n:
        nearest = nearest_divisor(n, shape.expert_count, config.learner.ranks)
        message = f"does not divide the model's {shape.expert_count} experts"
        yield problem(config, key, message, f"{nearest}, which also divides learner.ranks = {config.learner.ranks}")


def _positions(config: Config, shape: ModelShape, use: Use) -> Iterator[Problem]:
    if "learner" in processes(config, use) and 0 < shape.short_context < config.model.max_length:
        message = (
            f"is above {shape.short_context} tokens, and a longer sequence changes the positions (longrope) of all "
            "that "
            "the learner packs beside it, or of its own part on one rank"
        )
        yield problem(config, "model.max_length", message, f"at most {shape.short_context}, or another model")


def _adapters(config: Config, folder: Path) -> Iterator[Problem]:
    """Find targets that name no linear layer, or experts: the learner has those of a layer in one fused parameter."""
    layers, key = linear_layers(folder), "model.lora.targets"
    fits = sorted({name.rpartition(".")[2] for name in layers if not _of_experts(name)})
    unknown = [target for target in config.model.lora.targets if not any(ends_with(name, target) for name in layers)]
    if unknown:
        yield problem(config, key, f"no linear layer is named {', '.join(unknown)}", f"some of {', '.join(fits)}")
    experts = [t for t in config.model.lora.targets if any(ends_with(name, t) for name in layers if _of_experts(name))]
    if experts:
        message = f"{', '.join(experts)} names experts, which cannot have adapters"
        yield problem(config, key, message, f"layers of attention, or longer names, out of {', '.join(fits)}")


def _of_experts(name: str) -> bool:
    return ".experts." in name


def _files(config: Config) -> Iterator[Problem]:
    data = config.data
    sections = {"train": data.train, "evaluation": data.evaluation, "decontaminate_against": data.decontaminate_against}
    for section, sources in sections.items():
        for i, source in enumerate(sources):
            if source.kind not in ("jsonl", "parquet") or source.path is None:
                continue
            key, path = f"data.{section}.{i}.path", Path(source.path)
            if not path.exists():
                yield problem(config, key, "is not there", f"a {source.kind} file or a folder of them")
            elif path.is_file() and path.stat().st_size == 0:
                yield problem(config, key, "is empty: it has no prompt", "a file with one row for each prompt")


def _devices(config: Config, machine: Machine, use: Use) -> Iterator[Problem]:
    for key in [f"{section}.num_gpus" for section in processes(config, use)]:
        if value_at(config, key) > 0 and machine.gpus == 0:
            yield problem(config, key, "this machine has no GPU", f"{key}=0, as conf/tiny.yaml does, or ray.address")
    trains, generates = "learner" in processes(config, use), "rollout" in processes(config, use)
    if trains and config.model.dtype == "bfloat16" and config.learner.num_gpus == 0 and not machine.cpu_bfloat16:
        message = "this CPU has no bfloat16 arithmetic: training would be many times slower"
        yield problem(config, "model.dtype", message, "float32")
    if (
        generates
        and config.rollout.engine.dtype in ("bfloat16", "float16")
        and config.rollout.num_gpus == 0
        and not machine.cpu_bfloat16
    ):
        message = "this CPU has no 16-bit arithmetic"
        yield problem(config, "rollout.engine.dtype", message, "auto or float32")
    if config.sync.interface is not None:
        import psutil

        known = sorted(psutil.net_if_addrs())
        if config.sync.interface not in known:
            yield problem(config, "sync.interface", "this machine has no such interface", f"one of {', '.join(known)}")
