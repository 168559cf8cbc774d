"""Models that the learner computes exactly: packed sequences stay independent, and logits are hidden @ weight."""

from __future__ import annotations

from typing import Any

from learner.attention import IMPLEMENTATION
from r1ray.errors import ConfigError

_LAYERS = {"full_attention", "sliding_attention"}
"""Layers in which `learner.attention` separates packed sequences. Chunks as long as a sequence are full attention."""
_FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


def check_packable(hf: Any, max_length: int) -> None:
    """Raise ConfigError for a model whose layers would mix packed sequences of up to `max_length` tokens.

    Recurrent layers and convolutions carry a state along the row across the boundaries of sequences; their
    log-probabilities would be wrong without an error.
    """
    config = hf.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if (getattr(config, "attention_chunk_size", None) or max_length) >= max_length:
        kinds -= {"chunked_attention"}
    mixing = sorted(kinds - _LAYERS)
    window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds or not kinds else None
    if window and window < max_length and config._attn_implementation == IMPLEMENTATION:
        raise ConfigError(
            f"model {config.model_type} has a sliding window of {window} < model.max_length = {max_length} tokens: "
            "shorten that, or set model.attention=flash_attention_2"
        )
    if getattr(hf, "_is_stateful", False):
        mixing.append("recurrent layers")
    if mixing:
        raise ConfigError(
            f"model {config.model_type} has {', '.join(mixing)}, which would mix the sequences that the learner packs "
            "into one "
            "row: not supported. Models of full or sliding attention are"
        )


def check_logits(hf: Any) -> None:
    """Raise ConfigError if logits are not hidden @ weight: the learner's log-probabilities would differ from vLLM's."""
    config = hf.config.get_text_config()
    altered = [name for name in _FACTORS if getattr(config, name, None) not in (None, 1.0)]
    if getattr(config, "final_logit_softcapping", None):
        altered.append("final_logit_softcapping")
    if getattr(hf.get_output_embeddings(), "bias", None) is not None:
        altered.append("a bias in the output layer")
    if altered:
        raise ConfigError(f"model {config.model_type} alters its logits by {', '.join(altered)}: not supported")
