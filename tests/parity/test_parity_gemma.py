"""Gemma, Gemma 2, and PaLM's block (as Cohere has it, with one key-value head) against `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from rt2_jax.models import ModelConfig, PrefixLmConfig, make_backbone
from tests.parity.conftest import close, gradients_as_checkpoint, greedy, load, randomize

VOCAB = 96
DIMS = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "attn_implementation": "eager", "pad_token_id": 0,
}  # fmt: skip
GEMMA = (transformers.GemmaForCausalLM, transformers.GemmaConfig, {**DIMS, "num_key_value_heads": 1})
GEMMA_2 = (
    transformers.Gemma2ForCausalLM,
    transformers.Gemma2Config,
    {
        **DIMS, "num_key_value_heads": 2, "sliding_window": 5, "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 13,
    },
)  # fmt: skip


@pytest.fixture(params=[GEMMA, GEMMA_2], ids=["gemma", "gemma_2"])
def pair(request, save, tmp_path):
    model_class, config_class, fields = request.param
    theirs = randomize(model_class(config_class(**fields)))
    backbone, params = load(save(theirs), tmp_path)
    return theirs, backbone, params


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, VOCAB, (3, 12)).astype(np.int32)
    for row, length in enumerate((12, 7, 1)):
        prompt[row, length:] = 0
    target = rng.integers(3, VOCAB, (3, 10)).astype(np.int32)
    return np.zeros((3, 0, 224, 224, 3), np.uint8), prompt, target


def left_padded(prompt, target=None):
    """Their rows: padding on the left, then the prompt, then the target."""
    rows = [[0] * int((row == 0).sum()) + row[row != 0].tolist() for row in prompt]
    ids = torch.tensor(rows if target is None else [[*row, *more] for row, more in zip(rows, target, strict=True)])
    mask = (ids != 0).long()
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


def test_logits_gradients_and_greedy_tokens(pair, batch, tmp_path):
    theirs, backbone, params = pair
    images, prompt, target = batch
    length = target.shape[1]
    logits = theirs(**left_padded(prompt, target)).logits[:, -length - 1 : -1]
    close(jax.jit(backbone.logits)(params, images, prompt, target), logits.detach())

    inputs = left_padded(prompt)
    del inputs["position_ids"]
    tokens = theirs.generate(**inputs, max_new_tokens=32, min_new_tokens=32, do_sample=False, eos_token_id=None)
    np.testing.assert_array_equal(greedy(backbone, params, images, prompt, 32), tokens[:, -32:])

    def loss(params):
        rows = backbone.logits(params, images, prompt, target)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(rows), target[..., None], -1))

    flat = torch.from_numpy(target.astype(np.int64)).reshape(-1)
    torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), flat).backward()
    gradients_as_checkpoint(theirs, tmp_path / "gradients")
    _, wanted = load(tmp_path / "gradients", tmp_path)
    found = jax.jit(jax.grad(loss))(params)
    jax.tree.map(lambda one, other: close(one, other, 1e-3), found, wanted)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(wanted))


def test_palm_block_equals_cohere(batch):
    """Parallel block, bias-free LayerNorm, multi-query heads, SwiGLU, tied embeddings scaled by width ** -0.5.

    Cohere turns neighbouring pairs of a head where we turn halves: the same up to the order of a head's numbers.
    """
    fields = {name: value for name, value in DIMS.items() if name not in ("hidden_activation", "head_dim")}
    config = transformers.CohereConfig(
        **{**fields, "hidden_size": 32},
        num_key_value_heads=1, layer_norm_eps=1e-6, logit_scale=32**-0.5, use_qk_norm=False, hidden_act="silu",
    )  # fmt: skip
    theirs = randomize(transformers.CohereForCausalLM(config))
    text = PrefixLmConfig(
        width=32, layers=3, heads=4, kv_heads=1, head_dim=8, mlp=40, activation="silu", parallel_block=True,
        norm="layer", scaled_inputs=False, bidirectional_prefix=False, rope_theta=config.rope_parameters["rope_theta"],
    )  # fmt: skip
    model = ModelConfig(name="palm", vision=None, text=text, image_size=224, vocab_size=VOCAB, num_images=0)
    backbone = make_backbone(model)
    state = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    halves = np.concatenate([np.arange(0, 8, 2), np.arange(1, 8, 2)])

    def stack(name, arrange):
        return np.stack([arrange(state[f"model.layers.{i}.{name}.weight"]) for i in range(3)])

    def heads(weight):
        return weight.reshape(-1, 8, 32)[:, halves].transpose(2, 0, 1)

    params = {
        "token_embedding": {"embedding": state["model.embed_tokens.weight"]},
        "decoder": {
            "norm": {"scale": state["model.norm.weight"]},
            "blocks": {
                "norm_attention": {"scale": stack("input_layernorm", lambda weight: weight)},
                "attention": {
                    "query": {"kernel": stack("self_attn.q_proj", heads)},
                    "key": {"kernel": stack("self_attn.k_proj", heads)},
                    "value": {"kernel": stack("self_attn.v_proj", lambda weight: weight.T.reshape(32, 1, 8))},
                    "out": {"kernel": stack("self_attn.o_proj", lambda weight: weight.T.reshape(4, 8, 32))},
                },
                "mlp": {
                    name: {"kernel": stack(f"mlp.{name}_proj", lambda weight: weight.T)}
                    for name in ("gate", "up", "down")
                },
            },
        },
    }
    images, prompt, target = batch
    logits = theirs(**left_padded(prompt, target)).logits[:, -target.shape[1] - 1 : -1]
    close(backbone.logits(params, images, prompt, target), logits.detach())
