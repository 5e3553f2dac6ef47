"""SigLIP and SigLIP 2 towers, and PaliGemma 1 and 2 whole, against `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from rt2_jax.models.vit import Vit
from tests.parity.conftest import close, gradients_as_checkpoint, greedy, load, randomize

VOCAB, IMAGE_ID = 96, 95
VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 4,
    "attn_implementation": "eager",
}  # fmt: skip
GEMMA = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "attn_implementation": "eager",
}  # fmt: skip
TEXTS = {
    "paligemma": {**GEMMA, "model_type": "gemma", "num_key_value_heads": 1},
    "paligemma_2": {
        **GEMMA, "model_type": "gemma2", "num_key_value_heads": 2, "sliding_window": 6, "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 13,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def scaled(frames):
    return frames.astype(np.float32) / 127.5 - 1.0


def our_tokens(backbone, params, frames):
    vit = Vit(backbone.config.vision, dtype=jnp.float32, remat="none", unroll=False)
    return vit.apply({"params": params["vision"]}, scaled(frames))


@pytest.fixture
def text(save):
    config = transformers.GemmaConfig(**{**TEXTS["paligemma"], "tie_word_embeddings": True})
    return save(transformers.GemmaForCausalLM(config), "text")


def test_siglip(frames, save, text, tmp_path):
    theirs = randomize(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VIT, image_size=16)))
    backbone, params = load(save(theirs), tmp_path, role="vision", text=text)
    wanted = theirs(pixel_values=torch.from_numpy(scaled(frames)).permute(0, 3, 1, 2)).last_hidden_state
    close(our_tokens(backbone, params, frames), wanted.detach())


@pytest.mark.parametrize("grid", [4, 6, 3])
def test_siglip_2(grid, frames, save, text, tmp_path):
    """Its position embedding, of a `grid` x `grid` checkpoint, is resampled to the 4 x 4 patches of the frames."""
    theirs = randomize(transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**VIT, num_patches=grid**2)))
    settings = {"image_size": 16}
    backbone, params = load(save(theirs), tmp_path, role="vision", text=text, settings=settings)
    patches = scaled(frames).reshape(3, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 16, 48)
    wanted = theirs(
        pixel_values=torch.from_numpy(patches),
        pixel_attention_mask=torch.ones(3, 16, dtype=torch.long),
        spatial_shapes=torch.tensor([[4, 4]] * 3),
    ).last_hidden_state
    close(our_tokens(backbone, params, frames), wanted.detach())


@pytest.mark.parametrize("name", TEXTS)
def test_paligemma(name, frames, save, tmp_path):
    """Logits, gradients and greedy tokens, with an image before a bidirectional prompt and padding on some rows."""
    config = transformers.PaliGemmaConfig(
        vision_config={**VIT, "model_type": "siglip_vision_model", "image_size": 16, "projection_dim": 24},
        text_config=TEXTS[name], projection_dim=24, image_token_index=IMAGE_ID, attn_implementation="eager",
    )  # fmt: skip
    theirs = randomize(transformers.PaliGemmaForConditionalGeneration(config))
    settings = {"text.bos_id": 2, "text.separator_id": 9}
    backbone, params = load(save(theirs), tmp_path, settings=settings)

    rng = np.random.default_rng(0)
    prompt = rng.integers(10, IMAGE_ID, (3, 7)).astype(np.int32)
    prompt[1, 4:] = prompt[2, 1:] = 0
    target = rng.integers(10, IMAGE_ID, (3, 6)).astype(np.int32)
    images = frames[:, None]

    def their_inputs(target):
        """Padding, the image's places, BOS, the prompt, the separator; then the causal target."""
        rows = [[IMAGE_ID] * 16 + [2, *row[row != 0].tolist(), 9] for row in prompt]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row + more for row, more in zip(rows, target, strict=True)])
        kind = torch.zeros_like(ids)
        kind[:, longest:] = 1
        pixels = torch.from_numpy(scaled(frames)).permute(0, 3, 1, 2)
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": kind, "pixel_values": pixels}

    inputs = their_inputs(target.tolist())
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0) + 1
    logits = theirs(**inputs, position_ids=positions).logits[:, -target.shape[1] - 1 : -1]
    close(jax.jit(backbone.logits)(params, images, prompt, target), logits.detach())

    tokens = theirs.generate(
        **their_inputs([[]] * 3), max_new_tokens=32, min_new_tokens=32, do_sample=False, eos_token_id=None
    )
    np.testing.assert_array_equal(greedy(backbone, params, images, prompt, 32), tokens[:, -32:])

    def loss(params):
        rows = backbone.logits(params, images, prompt, target)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(rows), target[..., None], -1))

    flat = torch.from_numpy(target.astype(np.int64)).reshape(-1)
    torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), flat).backward()
    gradients_as_checkpoint(theirs, tmp_path / "gradients")
    _, wanted = load(tmp_path / "gradients", tmp_path, settings=settings)
    found = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        other = wanted
        for entry in path:
            other = other[entry.key]
        if path[-2].key == "key" and path[-1].key == "bias":
            continue  # moves every logit of a query alike: zero but for rounding
        close(leaf, other, 1e-3)
        assert np.abs(other).max() > 0, path
