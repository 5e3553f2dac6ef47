"""What `test_array_types.py` runs in a process of its own: models, sampler and training step, traced and checked.

The checks are put into a module as it is imported. Tracing computes shapes and dtypes and no numbers, so that it takes
seconds; one action is computed, for what the policy does outside of a trace.
"""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

TRAIN = ("augment", "integers", "losses", "muon", "optimizer", "state", "step", "trainable")
CHECKED = ["rt2_jax.models", "rt2_jax.policy", *(f"rt2_jax.train.{module}" for module in TRAIN)]

with jaxtyping.install_import_hook(CHECKED, "beartype.beartype"):
    from rt2_jax.actions import ActionBins, Embodiment, arm_space
    from rt2_jax.bundle.spec import grammar_of
    from rt2_jax.models import EncoderDecoderConfig, LoraConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone
    from rt2_jax.parallel import make_mesh, partitioned
    from rt2_jax.policy.policy import Policy
    from rt2_jax.policy.sampler import make_sampler
    from rt2_jax.tokens import Vocabulary
    from rt2_jax.tokens.grammar import text_grammar
    from rt2_jax.train.config import make_config
    from rt2_jax.train.integers import order_integers
    from rt2_jax.train.losses import loss_sums
    from rt2_jax.train.step import make_program

VOCABULARY = Vocabulary.load()
ROWS, PROMPT, TARGET = 4, 5, 7
PALI = ModelConfig(
    name="pali",
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=EncoderDecoderConfig(width=24, encoder_layers=2, decoder_layers=3, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=VOCABULARY.size,
)
SHALLOW = PALI.replace(vision={"layers": 1, "stem_widths": ()}, text={"encoder_layers": 1, "decoder_layers": 1})
PALM_E = dataclasses.replace(PALI, text=PrefixLmConfig(width=24, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=40))
MODELS = {
    "pali": PALI,
    "biases of layers, tied, two images": PALI.replace(
        text={"per_layer_bias": True, "tied_embeddings": True}, num_images=2, scan_unroll=True
    ),
    "bfloat16, parallel blocks": PALI.replace(
        vision={"parallel_blocks": True, "qk_norm": True, "stem_widths": ()}, compute_dtype="bfloat16", remat="full"
    ),
    "adapters": PALI.replace(lora=LoraConfig(".*/(query|value|up)", 2, 4.0)),
    "palm_e": PALM_E,
    "framed prompts, image tokens, parallel block": PALM_E.replace(
        text={
            "bos_id": 2,
            "separator_id": 9,
            "image_id": 11,
            "kv_heads": 1,
            "parallel_block": True,
            "norm": "layer",
            "scaled_inputs": False,
        },
        num_images=2,
    ),
    "windows, bfloat16": PALM_E.replace(
        text={"sliding_window": 4, "post_norms": True, "attention_softcap": 5.0, "logits_softcap": 3.0},
        compute_dtype="bfloat16",
    ),
    "text alone": dataclasses.replace(PALM_E, vision=None, num_images=0),
}
FIELDS = {
    "data_dir": "", "mixture": {"a": 1, "b": 1}, "steps": 10, "batch_size": ROWS, "prompt_len": PROMPT,
    "target_len": TARGET, "augment": {"brightness": 0.1, "contrast": 0.1, "shift": 2}, "dropout": 0.1,
}  # fmt: skip
CONFIGS = {
    "adafactor, microbatches": {"optimizer": {"name": "adafactor", "weight_decay": 0.1}, "microbatches": 2},
    "muon": {"optimizer": {"name": "muon"}},
    "adamw, frozen": {"optimizer": {"name": "adamw"}, "freeze": [["vision/.*", "frozen"], [".*", "train"]]},
}


def shape(sizes, dtype):
    return jax.ShapeDtypeStruct(sizes, dtype)


def inputs(config):
    """(images, prompt, target) of a batch."""
    frames = (ROWS, config.num_images, config.image_size, config.image_size, 3)
    return shape(frames, jnp.uint8), shape((ROWS, PROMPT), jnp.int32), shape((ROWS, TARGET), jnp.int32)


def shapes_of(backbone):
    return jax.eval_shape(backbone.init, jax.random.key(0))


def trace_model(config):
    """Logits, and the tokens that a sampler draws with them."""
    backbone = make_backbone(config)
    params, (images, prompt, target) = shapes_of(backbone), inputs(config)
    logits = jax.eval_shape(
        lambda *given: backbone.logits(*given, dropout_rng=jax.random.key(0)), params, images, prompt, target
    )
    assert logits.shape == (ROWS, TARGET, VOCABULARY.size) and logits.dtype == jnp.float32
    sampler = make_sampler(backbone, text_grammar(VOCABULARY), TARGET, temperature=1.0, top_k=3, top_p=0.9)
    start, key = shape((ROWS,), jnp.int32), jax.random.key(0)
    tokens = jax.eval_shape(lambda *given: sampler(*given).tokens, params, images, prompt, start, key)
    assert tokens.shape == (ROWS, TARGET)


def trace_training(changes):
    """A step and an evaluation."""
    backbone, mesh = make_backbone(PALI), make_mesh(None, jax.devices()[:1])
    program = make_program(make_config({**FIELDS, **changes}), backbone, 2, mesh)
    with partitioned(mesh):
        jax.eval_shape(program.init, jax.random.key(0))
        jax.eval_shape(program.train_step, program.state, program.batch)
        jax.eval_shape(program.eval_step, program.state.params, program.batch)
    params = shapes_of(backbone)
    jax.eval_shape(lambda params, rng: order_integers(params, VOCABULARY.integer_ids, rng), params, jax.random.key(0))


def act():
    """One action, the likeliest, of a policy without weights."""
    backbone, embodiments = make_backbone(SHALLOW), {"arm": Embodiment("arm", ActionBins(arm_space(0.04, 0.3)))}
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes_of(backbone))
    policy = Policy(
        backbone, params, VOCABULARY, embodiments, grammar_of(VOCABULARY, embodiments), PALI.image_size, prompt_len=24
    )
    output = policy.act(np.zeros((1, 32, 32, 3), np.uint8), ["pick red cube"])
    assert output.actions.shape == (1, 8) and output.bins.dtype == np.int32


def refuse():
    """What the annotations rule out is refused, so that the checks are known to be there."""
    backbone = make_backbone(PALI)
    params, (images, prompt, target) = shapes_of(backbone), inputs(PALI)
    logits = shape((ROWS, TARGET, 11), jnp.float32)
    batch = {"target": target, "weights": shape((ROWS, TARGET), jnp.float32), "task": shape((ROWS,), jnp.int32)}
    short = {**batch, "target": shape((ROWS, TARGET - 1), jnp.int32)}
    for function, *given in (
        (backbone.logits, params, images, prompt, shape((ROWS, TARGET), jnp.float32)),
        (backbone.logits, params, images, shape((ROWS + 1, PROMPT), jnp.int32), target),
        (backbone.logits, params, shape(images.shape, jnp.int32), prompt, target),
        (lambda logits, batch: loss_sums(logits, batch, 2), logits, short),
    ):
        try:
            jax.eval_shape(function, *given)
        except jaxtyping.TypeCheckError:
            continue
        raise SystemExit(f"not refused: {given}")


if __name__ == "__main__":
    refuse()
    for config in MODELS.values():
        trace_model(config)
    for changes in CONFIGS.values():
        trace_training(changes)
    act()
    print(f"checked {len(MODELS)} models, {len(CONFIGS)} ways to train, 1 policy")
