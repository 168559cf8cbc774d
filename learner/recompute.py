"""Keep less for the backward pass: recompute cheap results there instead of storing them.

A layer of a transformer with normalisation (RMSNorm) before its blocks and gated feed-forward layers (SwiGLU) stores,
by plain autograd, every normalised input and the product inside the feed-forward layer, because the matrix products
behind them need those for the gradients of their weights. Here such a matrix product stores a recipe, and the backward
pass follows it: products of stored vectors element by element. Values and gradients are the same.

    x --RMSNorm--> n --gate, up--> g, u --silu(g) * u--> p --down-->      stored: x, g, u; recomputed: n, p

Works through torch's hooks on saved tensors, so the linear layers stay modules: biases and ZeRO 3 work as before.
Shapes: N tokens, H hidden size, I intermediate size.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_NARROW = 64
_GATED = {"gate_proj": (_NARROW, 96), "up_proj": (_NARROW, 96), "down_proj": (96, _NARROW)}
"""Linear layers of a gated feed-forward layer, and their sizes in one that is tried."""

_RECENT = 4
"""Results that a following operation may still store. Qwen3 normalises queries before it projects the keys."""


class _Recipe:
    """How to compute a result again. Several operations may have stored it; the last one to ask drops it."""

    def __init__(self, result: Tensor, compute: Callable[[], Tensor]) -> None:
        self.numel, self.dtype = result.numel(), result.dtype
        self.uses = 0
        self._compute = compute
        self._again: Tensor | None = None

    def result(self) -> Tensor:
        """The result, computed for the first user and dropped by the last."""
        if self._again is None:
            with torch.no_grad():
                self._again = self._compute()
        again, self.uses = self._again, self.uses - 1
        if self.uses <= 0:
            self._again = None
        return again


class Recomputer:
    """The hooks of one model, and the results of its forward pass that may be computed again."""

    def __init__(self) -> None:
        self._recent: dict[int, tuple[Tensor, _Recipe]] = {}  # by address; the tensor keeps it from being reused
        self._active = False

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Within this context, what autograd stores is a recipe if there is one. For one forward pass."""
        self._active = torch.is_grad_enabled()
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                yield
        finally:
            self._active = False
            self._recent.clear()

    def offer(self, result: Tensor, compute: Callable[[], Tensor]) -> None:
        """`compute` gives `result` again. It may hold only tensors that are stored in any case."""
        if not self._active:
            return
        if len(self._recent) == _RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[address(result)] = (result, _Recipe(result, compute))

    def _pack(self, tensor: Tensor) -> Any:
        found = self._recent.get(address(tensor))
        if found is None:
            return tensor
        recipe = found[1]
        if (tensor.numel(), tensor.dtype) != (recipe.numel, recipe.dtype) or not tensor.is_contiguous():
            return tensor
        recipe.uses += 1
        return recipe, tensor.shape

    @staticmethod
    def _unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        recipe, shape = packed
        result: Tensor = recipe.result().view(shape)
        return result


def address(tensor: Tensor) -> int:
    """Where the values of a tensor are."""
    pointer: int = tensor.data_ptr()
    return pointer


class RmsNorm(torch.autograd.Function):
    """(x [..., H], weight [H], eps) -> (weight * x / root(mean(x^2) + eps), the factor of each row, float32 [..., 1]).

    With r the factor, n = x r and g = dy * weight: dx = r (g - n mean(g n)) and dweight = sum of dy n over the rows
    (Zhang and Sennrich 2019). Computes in float32 at least, like transformers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Any:
        """Store x, the factors and the weight."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, factor, weight)
        ctx.mark_non_differentiable(factor)
        return _normalised(x, factor, weight), factor

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor, _: Any) -> Any:
        """Two buffers of the size of x."""
        x, factor, weight = ctx.saved_tensors
        normalised = x * factor
        product = dy * normalised
        d_weight = product.reshape(-1, len(weight)).sum(0)
        mean = (product @ weight.to(product.dtype)).div_(len(weight)).unsqueeze(-1)
        dx = torch.mul(dy, weight, out=product) if product.dtype == dy.dtype else (dy * weight).to(product.dtype)
        dx.sub_(normalised.mul_(mean)).mul_(factor)
        return dx.to(x.dtype), d_weight.to(weight.dtype), None


def _normalised(x: Tensor, factor: Tensor, weight: Tensor) -> Tensor:
    return (x * factor).to(x.dtype).mul_(weight)


class GatedProduct(torch.autograd.Function):
    """(gate, up) [..., I] -> silu(gate) * up. `silu` holds silu(gate) for a moment in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, silu: list[Tensor]) -> Tensor:
        """Store the inputs only."""
        ctx.save_for_backward(gate, up)
        ctx.silu = silu
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d: Tensor) -> Any:
        """Two buffers of the size of `gate`."""
        gate, up = ctx.saved_tensors
        d_up = (ctx.silu.pop() if ctx.silu else F.silu(gate)).mul_(d)
        d_silu = d * up
        return torch.ops.aten.silu_backward.grad_input(d_silu, gate, grad_input=d_silu), d_up, None


def install(hf: nn.Module) -> Recomputer:
    """Have the modules of `hf` that this module knows offer their results to the recomputer that it returns.

    A module is known if a small one of its class computes, bit by bit, what this module would; the parameters of `hf`
    may still be on `meta`. Others are left as they are: correct, with more memory.
    """
    recomputer = Recomputer()
    known: dict[tuple[type, Any], bool] = {}
    for module in hf.modules():
        forward = _replacement(module, recomputer)
        if forward is None:
            continue
        key = (type(module), next(module.parameters()).dtype)
        if key not in known:
            known[key] = _same(module)
        if known[key]:
            module.forward = forward
    return recomputer


def _replacement(module: nn.Module, recomputer: Recomputer) -> Any:
    """Another forward for a module that may be known; None for others."""
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return partial(_normalise, module, recomputer)
    if all(isinstance(getattr(module, name, None), nn.Linear) for name in _GATED):
        return partial(_feed_forward, module, recomputer)
    return None


def _same(module: nn.Module) -> bool:
    """Whether a twin of a module that may be known computes the same as its replacement."""
    twin, width = _twin(module)
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(0)).to(next(twin.parameters()).dtype)
    with torch.no_grad():
        try:
            same: bool = torch.equal(twin(x), _replacement(twin, Recomputer())(x))
        except RuntimeError:  # of a module that expects the sizes of its layers elsewhere too
            return False
    return same


def _twin(module: nn.Module) -> tuple[nn.Module, int]:
    """A copy with random parameters and narrow linear layers, and the size of its input."""
    twin, generator = copy.copy(module), torch.Generator().manual_seed(0)

    def randomise(of: nn.Module) -> nn.Module:
        of._parameters = {
            name: p if p is None else nn.Parameter(torch.randn(p.shape, generator=generator).to(p.dtype))
            for name, p in of._parameters.items()
        }
        return of

    randomise(twin)
    if "weight" in twin._parameters:
        return twin, len(twin.weight)
    twin._modules = dict(module._modules)
    for name, (inputs, outputs) in _GATED.items():
        layer = getattr(module, name)
        bias, dtype = layer.bias is not None, layer.weight.dtype
        twin._modules[name] = randomise(nn.Linear(inputs, outputs, bias=bias, device="meta", dtype=dtype))
    return twin, _NARROW


def _normalise(module: Any, recomputer: Recomputer, hidden_states: Tensor) -> Tensor:
    y, factor = RmsNorm.apply(hidden_states, module.weight, module.variance_epsilon)
    x, weight = (
        hidden_states.detach(),
        module.weight.detach().clone(),
    )  # ZeRO 3 takes the weight away until its backward
    recomputer.offer(y, lambda: _normalised(x, factor, weight))
    result: Tensor = y
    return result


def _feed_forward(module: Any, recomputer: Recomputer, x: Tensor) -> Tensor:
    gate, up, silu = module.gate_proj(x), module.up_proj(x), list[Tensor]()
    product = GatedProduct.apply(gate, up, silu)
    stored_gate, stored_up = gate.detach(), up.detach()

    def again() -> Tensor:
        silu[:] = [F.silu(stored_gate)]
        return silu[0] * stored_up

    recomputer.offer(product, again)
    result: Tensor = module.down_proj(product)
    return result
