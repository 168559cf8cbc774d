"""Sizes of published models, for plans before the weights are downloaded.

Source: config.json and the safetensors index of each model on the Hugging Face hub. The tests compare the numbers of
parameters with the sums of the matrices.
"""

from __future__ import annotations

from pathlib import Path

from r1ray.models.folder import ModelShape

_SUFFIXES = ("-base", "-instruct")
_QWEN_SMALL, _QWEN, _LLAMA = 151_936, 152_064, 128_256
"""Rows of the embedding."""


def _dense(
    millions: float,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    key_value: int,
    vocabulary: int,
    *,
    tied: bool = False,
    context: int = 131_072,
) -> ModelShape:
    return ModelShape(
        parameters=round(millions * 1e6),
        layers=layers,
        hidden=hidden,
        heads=heads,
        intermediate=intermediate,
        key_value=key_value,
        key_value_heads=key_value * heads // hidden,
        vocabulary=vocabulary,
        context=context,
        output=0 if tied else vocabulary * hidden,
    )


_QWEN_1_5B = (1543.714304, 28, 1536, 12, 8960, 256, _QWEN_SMALL)
_QWEN_7B = (7615.616512, 28, 3584, 28, 18944, 512, _QWEN)
_LLAMA_70B = _dense(70553.706496, 80, 8192, 64, 28672, 1024, _LLAMA)

PUBLISHED: dict[str, ModelShape] = {
    "qwen2.5-0.5b": _dense(494.032768, 24, 896, 14, 4864, 128, _QWEN_SMALL, tied=True, context=32_768),
    "qwen2.5-1.5b": _dense(*_QWEN_1_5B, tied=True),
    "qwen2.5-math-1.5b": _dense(*_QWEN_1_5B, tied=True, context=4096),
    "qwen2.5-7b": _dense(*_QWEN_7B),
    "qwen2.5-math-7b": _dense(*_QWEN_7B, context=4096),
    "qwen2.5-14b": _dense(14770.033664, 48, 5120, 40, 13824, 1024, _QWEN),
    "qwen2.5-32b": _dense(32763.876352, 64, 5120, 40, 27648, 1024, _QWEN),
    "llama-3.1-8b": _dense(8030.261248, 32, 4096, 32, 14336, 1024, _LLAMA),
    "llama-3.1-70b": _LLAMA_70B,
    "llama-3.3-70b": _LLAMA_70B,
    "qwen3-30b-a3b": ModelShape(
        parameters=30_532_122_624,
        layers=48,
        hidden=2048,
        heads=32,
        intermediate=6144,
        key_value=512,
        key_value_heads=4,
        vocabulary=_QWEN_SMALL,
        context=40_960,
        output=_QWEN_SMALL * 2048,
        experts=128 * 2 * 768 * 2048,
        routed=48 * 128 * 3 * 768 * 2048,
        active_share=8 / 128,
    ),
    "deepseek-v3": ModelShape(
        parameters=671_026_404_352,
        layers=61,
        hidden=7168,
        heads=128,
        intermediate=18_432,
        key_value=128 * 192,
        key_value_heads=128,
        vocabulary=129_280,
        context=163_840,
        output=129_280 * 7168,
        experts=256 * 2 * 2048 * 7168,
        routed=58 * 256 * 3 * 2048 * 7168,
        active_share=8 / 256,
        latent=512 + 64,
    ),
}
"""Lower-case name without "-base" or "-instruct" -> sizes."""


def published_shape(path: str) -> ModelShape | None:
    """The sizes of the model that the last part of `path` names, e.g. models/Qwen2.5-7B; None if it is not known."""
    name = Path(path).name.lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return PUBLISHED.get(name)
