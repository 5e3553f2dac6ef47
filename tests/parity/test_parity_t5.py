"""T5 1.1, mT5, umT5 and UL2 against `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from tests.parity.conftest import close, gradients_as_checkpoint, greedy, load, randomize

VOCAB = 96
DIMS = {
    "vocab_size": VOCAB, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
MODELS = {
    "t5_1_1": (transformers.T5ForConditionalGeneration, transformers.T5Config, {"feed_forward_proj": "gated-gelu"}),
    "ul2": (transformers.T5ForConditionalGeneration, transformers.T5Config, {"feed_forward_proj": "gated-silu"}),
    "mt5": (transformers.MT5ForConditionalGeneration, transformers.MT5Config, {"feed_forward_proj": "gated-gelu"}),
    "umt5": (transformers.UMT5ForConditionalGeneration, transformers.UMT5Config, {"feed_forward_proj": "gated-gelu"}),
    "umt5_tied": (
        transformers.UMT5ForConditionalGeneration,
        transformers.UMT5Config,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": True},
    ),
}


@pytest.fixture(params=MODELS)
def pair(request, save, tmp_path):
    model_class, config_class, fields = MODELS[request.param]
    theirs = model_class(config_class(**{**DIMS, **fields}))
    if not request.param.endswith("tied"):
        # This release ties whatever the config says; public files have a head of their own, which is not scaled.
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.clone())
        theirs.config.tie_word_embeddings = False
    randomize(theirs)
    backbone, params = load(save(theirs), tmp_path, role="text")
    return theirs, backbone, params


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, VOCAB, (3, 30)).astype(np.int32)
    for row, length in enumerate((30, 11, 1)):
        prompt[row, length:] = 0
    target = rng.integers(2, VOCAB, (3, 25)).astype(np.int32)
    return np.zeros((3, 0, 224, 224, 3), np.uint8), prompt, target


def their_inputs(prompt):
    ids = torch.from_numpy(prompt.astype(np.int64))
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def test_logits_gradients_and_greedy_tokens(pair, batch, save, tmp_path):
    theirs, backbone, params = pair
    images, prompt, target = batch
    shifted = torch.from_numpy(np.pad(target[:, :-1], ((0, 0), (1, 0))).astype(np.int64))
    logits = theirs(**their_inputs(prompt), decoder_input_ids=shifted).logits
    close(jax.jit(backbone.logits)(params, images, prompt, target), logits.detach())

    tokens = theirs.generate(
        **their_inputs(prompt),
        max_new_tokens=32,
        min_new_tokens=32,
        do_sample=False,
        eos_token_id=None,
        use_cache=False,
    )
    np.testing.assert_array_equal(greedy(backbone, params, images, prompt, 32), tokens[:, 1:])

    def loss(params):
        rows = backbone.logits(params, images, prompt, target)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(rows), target[..., None], -1))

    flat = torch.from_numpy(target.astype(np.int64)).reshape(-1)
    torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), flat).backward()
    gradients_as_checkpoint(theirs, tmp_path / "gradients")
    _, wanted = load(tmp_path / "gradients", tmp_path, role="text")
    for path, found in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        leaf = wanted
        for entry in path:
            leaf = leaf[entry.key]
        assert np.abs(leaf).max() > 0, path
        close(found, leaf, 1e-3)
