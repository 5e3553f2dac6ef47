"""Small models with every structural feature, and folders that hold them."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from rt2_jax.bundle.spec import pretrained_spec, write_spec
from rt2_jax.bundle.steps import COMMIT_FILE, PARAMS_DIR
from rt2_jax.bundle.store import PRETRAINED_KIND, open_folder
from rt2_jax.convert.params_folder import ParamsReader
from rt2_jax.files.writing import seal
from rt2_jax.models import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone

VIT = VitConfig(patch_size=4, width=16, layers=2, heads=2, head_dim=8, mlp=24)
T5 = EncoderDecoderConfig(width=12, encoder_layers=2, decoder_layers=3, heads=2, head_dim=4, mlp=20)
GEMMA = PrefixLmConfig(width=12, layers=3, heads=4, kv_heads=1, head_dim=4, mlp=20)
GEMMA_2 = dataclasses.replace(
    GEMMA, kv_heads=2, post_norms=True, sliding_window=6, attention_softcap=50.0, logits_softcap=30.0, query_scale=0.25
)
PALI = ModelConfig(name="pali", vision=VIT, text=T5, image_size=16, vocab_size=128)


def alone(text) -> ModelConfig:
    """A language model without a vision tower."""
    return dataclasses.replace(PALI, vision=None, num_images=0, text=text)


MODELS = {
    "t5": alone(T5),
    "umt5": alone(dataclasses.replace(T5, per_layer_bias=True)),
    "ul2": alone(dataclasses.replace(T5, activation="silu", decoder_norm_scale=False)),
    "pali": PALI,
    "gemma": alone(dataclasses.replace(GEMMA, bidirectional_prefix=False)),
    "gemma_2": alone(dataclasses.replace(GEMMA_2, bidirectional_prefix=False)),
    "paligemma": dataclasses.replace(PALI, text=GEMMA),
    "paligemma_2": dataclasses.replace(PALI, text=GEMMA_2),
    "multi_head_gemma": dataclasses.replace(PALI, text=dataclasses.replace(GEMMA, kv_heads=4)),
}


def native_folder(path: pathlib.Path, config: ModelConfig, dtype: str = "float32", seed: int = 0) -> pathlib.Path:
    """A folder of ours with random weights, as `rt2 convert` would write it."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(make_backbone(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype), shapes)
    path.mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((path / PARAMS_DIR).resolve(), params)
    (path / PARAMS_DIR / COMMIT_FILE).write_text("complete\n")
    write_spec(path, pretrained_spec(config, None, []), None)
    seal(path, PRETRAINED_KIND)
    return path


def stored(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every parameter of a folder of ours, in the dtype that it is stored in."""
    reader = ParamsReader(open_folder(path).params)
    return {name: reader.read(name) for name in reader.shapes}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Bit for bit, dtypes included."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def flat(tree) -> dict:
    """ "a/b/c" -> leaf."""
    return flatten_dict(tree, sep="/")
