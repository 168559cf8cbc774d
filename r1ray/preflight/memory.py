"""Memory of a learner rank: bounds that the learner keeps, and their sum for a configuration and a model.

It follows Rajbhandari et al. 2020 (ZeRO, section 3): with P parameters, a compute type of d bytes and R ranks, weights
dP, gradients 4P (they are summed in float32) and optimiser state 12P (float32 master copy and two moments), of which
stage 1 divides the optimiser state by R, stage 2 the gradients too, stage 3 the weights too. Activations are counted
per packed token and layer for a pre-norm transformer with a gated feed-forward and no stored attention scores. Imports
no torch.
"""

from __future__ import annotations

import math
from dataclasses import replace

from r1ray.config.rules import copies_reference
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.models.folder import ModelShape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

LOGITS_AT_ONCE = {"cuda": 2**26, "cpu": 2**23}
"""Elements of the largest float32 block of logits: independent of tokens and vocabulary: 256 or 32 MiB.

On a CPU a block of 170 rows of a 49k vocabulary was no slower than one of 1,365; a GPU needs more rows.
"""

LEARNER_MMAP_THRESHOLD = 2**22
"""Bytes from which glibc gives a learner's tensor pages of its own, which go back when it is freed.

By default glibc raises this to 32 MiB, and activations of changing sizes then leave holes that are never returned.
"""

BUCKET_ELEMENTS = 50_000_000
"""Gradients reduced at once, in elements.

DeepSpeed allocates such a buffer in every backward pass: never more than the model.
"""

LIVE_PARAMETERS = 1_000_000_000
"""Parameters that ZeRO 3 keeps gathered beside those of the current layer: DeepSpeed's default."""

_LOGIT_BYTES = {"float32": 8, "bfloat16": 12}
"""Of each element of a block: two float32 blocks are alive at once, in bfloat16 also two of its own (learner/model.py).
"""

Items = dict[str, float]
"""Name of a part -> bytes."""


def logits_at_once(*, cuda: bool) -> int:
    """Elements of the largest block of logits on this kind of device."""
    return LOGITS_AT_ONCE["cuda" if cuda else "cpu"]


def key_value_copies(heads: int, ranks: int) -> int:
    """Copies of each key/value head, so that a sequence group of `ranks` can divide the `heads` of keys evenly.

    The number of query heads is a multiple of both, so it is a multiple of heads x copies too.
    """
    return ranks // math.gcd(heads, ranks)


def engine_item_bytes(config: Config) -> int:
    """Bytes of one value in the rollout engine: a weight, or a value of the KV cache."""
    dtype = config.rollout.engine.dtype
    return BYTES[config.model.dtype if dtype == "auto" else dtype]


def cache_bytes(config: Config, shape: ModelShape) -> int:
    """KV cache of one token in all layers."""
    return shape.layers * shape.cached * engine_item_bytes(config)


def trained_parameters(config: Config, shape: ModelShape) -> float:
    """Number of parameters that the optimiser updates: all, or those of the adapters.

    An adapter has rank x (inputs + outputs); a target of another name than in Llama counts as a feed-forward layer.
    """
    lora = config.model.lora
    if lora.rank is None:
        return float(shape.parameters)
    query, forward = shape.key_value // shape.key_value_heads * shape.heads, shape.hidden + shape.intermediate
    sizes = {
        "q_proj": shape.hidden + query,
        "k_proj": shape.hidden + shape.key_value,
        "v_proj": shape.hidden + shape.key_value,
        "o_proj": query + shape.hidden,
    }
    ends = {target.rpartition(".")[2] for target in lora.targets}
    return float(lora.rank * shape.layers * sum(sizes.get(end, forward) for end in ends))


def learner_bytes(config: Config, shape: ModelShape, use: Use = "train") -> tuple[Items, Items]:
    """Return the memory of one learner rank: (on its device, in host memory in any case), without the process itself.

    A reward model has a vector in place of the output layer, and neither logits nor a reference.
    """
    if use == "reward-model":
        shape = replace(shape, parameters=shape.parameters - shape.output + shape.hidden)
    learner, d, p = config.learner, BYTES[config.model.dtype], float(shape.parameters)
    stage, ranks = learner.zero_stage, learner.ranks
    trained, adapters = trained_parameters(config, shape), config.model.lora.rank is not None
    p += trained if adapters else 0
    elsewhere = shape.routed * (1 - 1 / learner.expert_parallel)  # experts of other ranks
    weights = d * (p - elsewhere) / (ranks if stage == 3 else 1)
    master = 0.0 if stage == 0 and config.model.dtype == "float32" else 4.0
    # Stages 1 and 2 divide all parameters by the ranks: experts by their own ranks and by those with the same ones.
    optimizer = (8 + master) * (trained / ranks if stage >= 1 else trained - elsewhere)
    gradients, offloaded = _gradient_bytes(config, shape)
    tokens, output = learner.micro_batch_tokens, shape.vocabulary * shape.hidden
    device: Items = {"gradients": gradients, "activations": _activation_bytes(config, shape)}
    if use != "reward-model":
        block = min(tokens * shape.vocabulary, logits_at_once(cuda=learner.num_gpus > 0))
        device["logits"] = float(block * _LOGIT_BYTES[config.model.dtype])
        if adapters:
            device["merged weight"] = float(d * shape.largest)  # with its adapter, on the way to the rollout workers
        else:
            device["output gradient"] = float(output * (4 + d))  # its float32 sum over the blocks, the product of one
    host: Items = {}
    if learner.num_gpus:
        # Rank 0 reads one weight after the other, and makes one of several tensors; counted for every rank.
        host["largest weight while it is read"] = 2.0 * d * shape.largest
    if learner.offload_optimizer:
        host["offloaded gradients"] = offloaded
    (host if learner.offload_parameters else device)["weights"] = weights
    (host if learner.offload_optimizer else device)["optimizer"] = optimizer
    if use == "train" and copies_reference(config):
        device["reference"] = weights
    if learner.expert_parallel > 1:
        device["gathered experts"] = 2.0 * d * shape.experts  # of one layer, on the way to the rollout workers
    if stage == 3:
        device["gathered weights"] = _gathered_bytes(config, shape)
    return device, host


def _gradient_bytes(config: Config, shape: ModelShape) -> tuple[float, float]:
    """Return the bytes of gradients (on the device, in the host with an offloaded optimiser): sums, and one
    micro-batch.

    DeepSpeed sums in float32, whole at stages 0 and 1, this rank's share at 2 and 3. What a backward pass adds is in
    the compute type and goes bucket by bucket, but for bfloat16 at stage 1, whose optimiser (BF16_Optimizer) keeps all
    of it.
    """
    learner, d, p = config.learner, BYTES[config.model.dtype], trained_parameters(config, shape)
    stage, offload = learner.zero_stage, learner.offload_optimizer
    share = 4 * p / learner.ranks
    p -= shape.routed * (1 - 1 / learner.expert_parallel)  # without the experts of other ranks
    if stage == 0:
        return 4 * p, 0.0
    whole = stage == 1 and config.model.dtype == "bfloat16" and not offload
    passing = d * (p if whole else min(p, BUCKET_ELEMENTS + shape.largest))
    if stage == 1:
        return 4 * p + passing, 2 * share
    # In the host they are there twice: as they come in, and as the optimiser takes them.
    return (passing if offload else share + passing), 2 * share


def _gathered_bytes(config: Config, shape: ModelShape) -> float:
    """Return the bytes that ZeRO 3 gathers at once: the next layers in a pass; a bucket and its tensors when it
    publishes.

    A bucket is closed by the tensor that fills it. The two are never there together.
    """
    d, p = BYTES[config.model.dtype], shape.parameters
    passes = d * min(p, LIVE_PARAMETERS + shape.largest)
    publishing = 2 * min(d * p, config.sync.bucket_bytes + d * shape.largest)
    return float(max(passes, publishing))


def _activation_bytes(config: Config, shape: ModelShape) -> float:
    """Return what a micro-batch keeps for its backward pass.

    Autograd stores 8 hidden, 2 key-value and 4 intermediate vectors per token and layer. `learner/recompute.py` and
    `learner/attention.py` store half of the hidden and intermediate ones, and compute the rest again layer by layer.
    A sequence group stores attention's output by heads and by tokens, and copies of key-value heads.
    """
    n = config.learner.sequence_parallel
    key_value = shape.key_value * key_value_copies(shape.key_value_heads, n)
    exchanged = shape.hidden if n > 1 else 0
    per_layer = 8 * shape.hidden + 2 * key_value + 4 * shape.intermediate + exchanged
    stored = per_layer
    if config.model.activation_checkpointing:
        stored = shape.hidden
    elif shape.recomputes:
        stored = 4 * shape.hidden + 2 * key_value + 2 * shape.intermediate + exchanged
    again = per_layer if stored < per_layer else 0  # one layer at a time
    values = shape.layers * stored + again
    return float(config.learner.micro_batch_tokens * values * BYTES[config.model.dtype])
