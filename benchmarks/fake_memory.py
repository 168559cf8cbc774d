"""Memory of a learner rank at full depth, by fake tensors, beside the planner's figures: no weights, no GPU.

    python -m benchmarks.fake_memory [OVERLAY ...] [key=value ...]       by default every overlay of conf/models for GPUs

transformers builds the model with fake parameters at the sizes of its published configuration; the learner's own code
runs one micro-batch forward and backward on them, while every storage that is made and freed is counted. Parameters,
gradients and optimiser state are those of DeepSpeed's partitions: ceil(n / ranks) values of each parameter that a stage
divides. On a GPU the attention kernel stores queries, keys, values, output and one number per row and head; a stand-in
that stores the same takes its place here. Not counted: DeepSpeed's buckets, gathered weights, what an allocator rounds
up.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from learner import attention, model, recompute
from learner.batch import pack_tokens
from learner.model import PolicyModel
from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.config.sources import CONF_DIR
from r1ray.models.folder import ModelShape
from r1ray.models.published import published_shape
from r1ray.preflight.memory import BYTES, LOGITS_AT_ONCE, learner_bytes
from r1ray.util.machine import GIB

ROWS = ("weights", "gradients", "optimizer", "one micro-batch")


class LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of the storages that operations have made and nobody has freed, and their largest sum; not of `there`."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = WeakIdKeyDictionary()
        for tensor in there:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the new storages among its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        weakref.finalize(storage, self._freed, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size


class StoredAttention(torch.autograd.Function):  # type: ignore[misc]
    """Stores what a variable-length kernel stores, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Any, scale: float) -> Tensor:
        """See the class."""
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:2], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> Any:
        """See the class."""
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The learner's code with the sizes that it has on GPUs."""
    with (
        patch.object(attention, "_padded", StoredAttention.apply),
        patch.object(model, "logits_at_once", lambda cuda: LOGITS_AT_ONCE["cuda"]),
        patch.object(recompute, "_same", lambda module: True),  # which compares values
        patch.object(recompute, "address", lambda tensor: tensor.untyped_storage()._cdata),
    ):
        yield


def hugging_face(shape: ModelShape, name: str, dtype: torch.dtype) -> Any:
    """The dense model of these sizes, in the family that its name tells."""
    import transformers

    family = "Llama" if "llama" in name.lower() else "Qwen2"
    config = getattr(transformers, f"{family}Config")(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.output == 0,
    )
    config._attn_implementation = attention.choose("packed", cuda=False)
    return getattr(transformers, f"{family}ForCausalLM")._from_config(config, dtype=dtype)


def partition(parameters: Sequence[Tensor], divided: bool, ranks: int) -> int:
    """Values of a rank."""
    return sum(-(-p.numel() // ranks) if divided else p.numel() for p in parameters)


def micro_batch_bytes(policy: PolicyModel, config: Config, shape: ModelShape) -> int:
    """Peak of one forward and backward pass, beside parameters and gradients."""
    learner = config.learner
    sequences = max(1, learner.micro_batch_tokens // config.model.max_length)
    length = learner.micro_batch_tokens // sequences
    prompt = config.data.max_prompt_tokens
    rng = np.random.default_rng(0)

    def ids(count: int) -> Any:
        return rng.integers(0, shape.vocabulary, count, dtype=np.int32)

    tokens = pack_tokens(
        [ids(prompt) for _ in range(sequences)],
        [ids(length - prompt) for _ in range(sequences)],
        [1.0] * sequences,
        torch.device("cpu"),
    )
    for parameter in policy.parameters():  # DeepSpeed adds each gradient to its sums and frees it
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with LiveBytes([*policy.parameters(), *policy.buffers()]) as live:
        logprobs, _ = policy(tokens)
        logprobs.sum().backward()
    peak: int = live.peak
    return peak


def measure(config: Config, shape: ModelShape) -> dict[str, int]:
    """Bytes of a rank by part, with fake tensors."""
    learner, ranks, stage = config.learner, config.learner.ranks, config.learner.zero_stage
    size = BYTES[config.model.dtype]
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_a_gpu():
        hf = hugging_face(shape, config.model.path, getattr(torch, config.model.dtype))
        if config.model.activation_checkpointing:
            hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy = PolicyModel(hf.train())
        parameters = list(policy.parameters())
        return {
            "parameters": sum(p.numel() for p in parameters),
            "weights": size * partition(parameters, stage == 3, ranks),
            "gradients": 4 * partition(parameters, stage >= 2, ranks),
            "optimizer": 12 * partition(parameters, stage >= 1, ranks) if not learner.offload_optimizer else 0,
            "one micro-batch": micro_batch_bytes(policy, config, shape),
        }


def planned(config: Config, shape: ModelShape) -> dict[str, float]:
    """The planner's bytes for the same parts; its gradients include those of one backward pass on their way."""
    device, _ = learner_bytes(config, shape)
    passing = device["activations"] + device["logits"] + device.get("output gradient", 0.0)
    return {**{name: device.get(name, 0.0) for name in ROWS[:3]}, "one micro-batch": passing}


def main(arguments: Sequence[str]) -> int:
    """Print a table; exit code 1 if a number of parameters is not the published one."""
    settings = [a for a in arguments if "=" in a]
    named = [a for a in arguments if "=" not in a]
    wrong = False
    print(f"{'overlay':<18}{'part':<18}{'fake, GiB':>12}{'plan, GiB':>12}{'plan/fake':>11}")
    for name in named or sorted(path.stem for path in (CONF_DIR / "models").glob("*.yaml")):
        config = load_config([f"models/{name}"], settings).config
        shape = published_shape(config.model.path)
        if shape is None or shape.experts:
            continue
        found, plan = measure(config, shape), planned(config, shape)
        wrong |= found["parameters"] != shape.parameters
        for part in ROWS:
            share = plan[part] / found[part] if found[part] else float("nan")
            print(f"{name:<18}{part:<18}{found[part] / GIB:>12.2f}{plan[part] / GIB:>12.2f}{share:>11.3f}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
