"""Packing, attention and the log-probability head change nothing: values and gradients against transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner import model as model_module
from learner.batch import PackedTokens, pack_tokens
from learner.model import TargetLogprobs
from r1ray.errors import ConfigError
from tests.integration.learner_support import VOCABULARY, load_policy, make_config, make_model, write_tokenizer

pytestmark = pytest.mark.integration

LENGTHS = [(1, 9), (5, 1), (3, 30), (8, 28), (2, 2), (17, 12), (4, 55)]  # prompt, completion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


def sequences() -> tuple[list[Any], list[Any], list[float]]:
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(0, VOCABULARY, n, dtype=np.int32)  # noqa: E731
    return [draw(p) for p, _ in LENGTHS], [draw(c) for _, c in LENGTHS], [0.6, 1.0, 1.3, 1.0, 0.7, 2.0, 0.9]


def packed() -> PackedTokens:
    return pack_tokens(*sequences(), torch.device("cpu"))


def one_by_one(folder: Path, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """Log-probabilities, entropies and gradients of a random function of both, by plain transformers."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    logprobs, entropies = [], []
    for prompt, completion, temperature in zip(*sequences(), strict=True):
        ids = torch.tensor(np.concatenate([prompt, completion]), dtype=torch.int64)[None]
        log_p = (hf(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        logprobs.append(log_p.gather(1, torch.tensor(completion, dtype=torch.int64)[:, None])[:, 0])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    logprob_T, entropy_T = torch.cat(logprobs), torch.cat(entropies)
    scalar(logprob_T, entropy_T, seed).backward()
    return logprob_T.detach(), entropy_T.detach(), {name: p.grad for name, p in hf.named_parameters()}


def scalar(logprob_T: Any, entropy_T: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, len(logprob_T), generator=generator)
    return (weights[0] * logprob_T).sum() + (weights[1] * entropy_T).sum()


@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("blocks", ["one block of logits", "many blocks of logits"])
def test_packed_equals_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, activation_checkpointing: bool, blocks: str
) -> None:
    if blocks == "many blocks of logits":
        monkeypatch.setattr(model_module, "logits_at_once", lambda *, cuda: 5 * VOCABULARY)  # five rows at once
    config = make_config(folder, model__activation_checkpointing=activation_checkpointing)
    policy = load_policy(config.model, folder)
    logprob_T, entropy_T = policy(packed())
    expected_logprob_T, expected_entropy_T, gradients = one_by_one(folder, 3)
    assert float((logprob_T.detach() - expected_logprob_T).abs().max()) < 1e-5
    assert float((entropy_T.detach() - expected_entropy_T).abs().max()) < 1e-5
    scalar(logprob_T, entropy_T, 3).backward()
    found = {name.removeprefix("hf."): p.grad for name, p in policy.named_parameters()}
    assert found.keys() == gradients.keys()
    for name, expected in gradients.items():
        assert float((found[name] - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max())), name


def test_sequences_do_not_see_each_other(folder: Path) -> None:
    """Another neighbour in the row leaves a sequence's log-probabilities as they are."""
    policy = load_policy(make_config(folder).model, folder)
    prompts, completions, temperatures = sequences()
    with torch.no_grad():
        alone, _ = policy(pack_tokens(prompts[2:3], completions[2:3], temperatures[2:3], torch.device("cpu")))
        together, _ = policy(packed())
    first = LENGTHS[0][1] + LENGTHS[1][1]
    assert torch.allclose(together[first : first + LENGTHS[2][1]], alone, atol=1e-6)


def test_model_without_tied_embeddings(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "untied", tie_word_embeddings=False)
    policy = load_policy(make_config(folder).model, folder)
    assert "hf.lm_head.weight" in dict(policy.named_parameters())
    with torch.no_grad():
        found, _ = policy(packed())
    assert float((found - one_by_one(folder, 0)[0]).abs().max()) < 1e-5


def test_head_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(6, 5, generator=generator, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(9, 5, generator=generator, dtype=torch.float64).float().requires_grad_()
    target, temperature = torch.tensor([0, 3, 8, 8, 1, 2]), torch.linspace(0.5, 2.0, 6)
    found = TargetLogprobs.apply(hidden, weight, target, temperature, False, torch.tensor([], dtype=torch.int64))
    log_p = ((hidden @ weight.T) / temperature[:, None]).log_softmax(-1)
    expected = (log_p.gather(1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))
    for wanted in (0, 1):  # each output alone: the other's gradient is None
        assert torch.allclose(found[wanted], expected[wanted], atol=1e-6)
        gradients = [
            torch.autograd.grad(o[wanted].sum(), (hidden, weight), retain_graph=True) for o in (found, expected)
        ]
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gradient_that_is_summed_in_place_is_the_same(tmp_path: Path, tied: bool) -> None:
    """Over two micro-batches, so that the sum begins empty once and once not."""
    folder = make_model(tmp_path / "model", tie_word_embeddings=tied)
    found = []
    for in_place in (False, True):
        policy = load_policy(make_config(folder).model, folder)
        policy.hf.get_output_embeddings().in_place = in_place
        for weight in (1.0, -0.5):
            logprob_T, entropy_T = policy(packed())
            (weight * logprob_T.sum() + entropy_T.square().sum()).backward()
        found.append({name: p.grad for name, p in policy.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("unused", [[], [0], [4, 7, 8]])
def test_ids_without_a_token_have_no_share_in_values_or_gradients(unused: list[int]) -> None:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(6, 5, generator=generator).requires_grad_()
    weight = torch.randn(9, 5, generator=generator).requires_grad_()
    target, temperature = torch.tensor([1, 2, 3, 5, 6, 1]), torch.linspace(0.5, 2.0, 6)
    used = [i for i in range(9) if i not in unused]
    found = TargetLogprobs.apply(hidden, weight, target, temperature, False, torch.tensor(unused, dtype=torch.int64))
    log_p = ((hidden @ weight[used].T) / temperature[:, None]).log_softmax(-1)
    place = torch.tensor([used.index(int(t)) for t in target])
    expected = (log_p.gather(1, place[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))
    for output in (0, 1):
        assert torch.allclose(found[output], expected[output], atol=1e-5)
        gradients = [
            torch.autograd.grad(o[output].sum(), (hidden, weight), retain_graph=True) for o in (found, expected)
        ]
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
        assert torch.equal(gradients[0][1][unused], torch.zeros(len(unused), 5))


def test_a_padded_vocabulary_is_computed_over_its_tokens_only(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "padded", vocab_size=VOCABULARY + 7)
    policy = load_policy(make_config(folder).model, folder)
    with torch.no_grad():
        logprob_T, _ = policy(packed())
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected = []
        for prompt, completion, temperature in zip(*sequences(), strict=True):
            ids = torch.tensor(np.concatenate([prompt, completion]), dtype=torch.int64)[None]
            logits = hf(ids).logits[0, len(prompt) - 1 : -1, :VOCABULARY] / temperature
            expected.append(logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0])
    assert float((logprob_T - torch.cat(expected)).abs().max()) < 1e-5


def test_dropout_of_the_model_is_silenced(tmp_path: Path) -> None:
    """A ratio must be 1 when nothing has changed, even in train mode."""
    folder = make_model(tmp_path / "dropout", attention_dropout=0.5)
    policy = load_policy(make_config(folder).model, folder)
    assert policy.training
    assert torch.equal(policy(packed())[0], policy(packed())[0])


def test_a_window_shorter_than_a_sequence_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "window", use_sliding_window=True, sliding_window=58, max_window_layers=0)
    with pytest.raises(ConfigError, match=r"sliding window of 58 < model\.max_length = 64 tokens"):
        load_policy(make_config(folder).model, folder)
    policy = load_policy(make_config(folder, model__max_length=58).model, folder)
    with pytest.raises(ConfigError, match="sliding window of 58 < 59 tokens"):
        policy(packed())


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("Lfm2", {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}, "has conv, which would mix"),
        ("Jamba", {"num_hidden_layers": 2, "mamba_d_state": 4, "num_experts": 1}, "recurrent layers, which would mix"),
        ("Llama4Text", {"num_hidden_layers": 4, "attention_chunk_size": 63, "head_dim": 8}, "has chunked_attention"),
        ("Cohere", {"num_hidden_layers": 1}, "alters its logits by logit_scale"),
        ("Granite", {"num_hidden_layers": 1, "logits_scaling": 8.0}, "alters its logits by logits_scaling"),
    ],
)
def test_models_that_packing_or_the_head_would_compute_wrongly_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    import transformers

    name = "Llama4" if kind == "Llama4Text" else kind
    settings = getattr(transformers, f"{kind}Config")(**SMALL, **changes)
    getattr(transformers, f"{name}ForCausalLM")(settings).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_policy(make_config(tmp_path).model, tmp_path)


def test_a_factor_of_one_alters_nothing(tmp_path: Path) -> None:
    import transformers

    transformers.GraniteForCausalLM(transformers.GraniteConfig(**SMALL, num_hidden_layers=1)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, SMALL["vocab_size"])
    load_policy(make_config(tmp_path).model, tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path = .*cannot be loaded"):
        load_policy(make_config(tmp_path).model, tmp_path)


def test_flash_attention_is_refused_where_it_is_not_installed(folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs CUDA and the package flash_attn"):
        load_policy(make_config(folder, model__attention="flash_attention_2").model, folder)
