"""The streaming engine with real vLLM, in a process of its own: the environment must be set before vLLM is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

TEXT = ["bus 7 A+5 B-3 C+8 User: Assistant: <think> </think> <answer> </answer> wait, let me check"]

SCRIPT = """
import sys
from pathlib import Path
from r1ray.serving.engine import StreamingEngine
from r1ray.util.machine import this_machine
from r1ray.types import Sampling

engine = StreamingEngine(Path(sys.argv[1]), this_machine(), max_length=4096)
assert engine.max_length == 128, engine.max_length
greedy = Sampling(temperature=0.0, max_new_tokens=20)
ids = engine.tokenizer.encode("User: bus 7 A+5\\nAssistant:")
first = list(engine.stream(ids, greedy, ()))
assert len(first) == 20, first

stopped = engine.stream(ids, greedy, ())
assert [next(stopped), next(stopped)] == first[:2]
stopped.close()
assert list(engine.stream(ids, greedy, ())) == first
print("ok")
"""


def write_model(folder: Path) -> None:
    """A random model of the tiny kind, with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    raw.train_from_iterator(TEXT, trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=raw.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=None,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


@pytest.mark.integration
def test_text_comes_in_bits_and_an_abandoned_response_leaves_the_engine_whole(tmp_path):
    write_model(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip().endswith("ok"), done.stdout + done.stderr
