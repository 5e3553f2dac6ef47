"""Out and in again, every format, bit for bit."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rt2_jax.bundle.store import open_folder
from rt2_jax.convert import big_vision_layout, sinks
from rt2_jax.convert.exporter import export_weights, foreign_tensors
from rt2_jax.convert.importer import import_weights
from rt2_jax.convert.params_folder import ParamsReader
from rt2_jax.errors import UserError
from rt2_jax.models.config import LoraConfig
from tests.convert.models import MODELS, PALI, assert_same, native_folder, stored

ROUTES = [
    *((name, "transformers", "out") for name in MODELS if name != "ul2"),
    *((name, "t5x", "out") for name in ("t5", "umt5", "ul2")),
    *((name, "big_vision", "out/paligemma.npz") for name in ("paligemma", "paligemma_2", "multi_head_gemma")),
]
# What shapes and config.json cannot say, or a converted model starts with.
NOT_TOLD = {"name", "compute_dtype", "remat"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "format", "source"), ROUTES, ids=lambda value: value)
def test_out_and_in_is_bit_equal(name, format, source, dtype, tmp_path):
    config = MODELS[name]
    folder = native_folder(tmp_path / "ours", config, dtype)
    export_weights(folder, tmp_path / "out", format)
    untold = name == "paligemma_2" and format == "big_vision"  # its shapes do not tell the window and the scale
    settings = {"text.query_scale": 0.25, "text.sliding_window": 6} if untold else {}
    imported = import_weights(tmp_path / "again", model=tmp_path / source, settings=settings)
    assert_same(stored(tmp_path / "again"), stored(folder))
    assert imported.new == [] and imported.resampled is None
    one, other = imported.config.to_json(), config.to_json()
    for key in one.keys() - NOT_TOLD - {"image_size"}:
        assert one[key] == other[key], key
    assert config.vision is None or imported.config.image_size == config.image_size


def test_a_second_export_gives_the_same_files(tmp_path):
    folder = native_folder(tmp_path / "ours", MODELS["paligemma_2"])
    export_weights(folder, tmp_path / "one", "transformers")
    import_weights(tmp_path / "again", model=tmp_path / "one")
    export_weights(tmp_path / "again", tmp_path / "two", "transformers")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_large_models_are_cut_into_files(tmp_path, monkeypatch):
    folder = native_folder(tmp_path / "ours", MODELS["umt5"])
    monkeypatch.setattr(sinks, "SHARD_BYTES", 4000)
    export_weights(folder, tmp_path / "out", "transformers")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert len(files) > 3 and set(index["weight_map"].values()) == files
    import_weights(tmp_path / "again", model=tmp_path / "out")
    assert_same(stored(tmp_path / "again"), stored(folder))


@pytest.mark.parametrize("scanned", [False, True])
def test_a_big_vision_vit_goes_out_and_in(scanned, tmp_path):
    folder = native_folder(tmp_path / "ours", PALI)
    reader = ParamsReader(open_folder(folder).params)
    layout = big_vision_layout.vit_layout(PALI.vision, scanned)
    sinks.write_npz(tmp_path / "vit.npz", foreign_tensors(layout, reader))
    imported = import_weights(tmp_path / "again", model=folder, vision=tmp_path / "vit.npz")
    assert imported.config.vision == PALI.vision
    # Tower and language model count as strangers, so the projection is drawn.
    projection = ["image_projection/bias", "image_projection/kernel"]
    assert sorted(imported.new) == projection
    one, two = stored(tmp_path / "again"), stored(folder)
    for name in projection:
        del one[name], two[name]
    assert_same(one, two)


def test_a_file_with_both_of_siglips_towers(tmp_path):
    folder = native_folder(tmp_path / "ours", PALI)
    reader = ParamsReader(open_folder(folder).params)
    tower = foreign_tensors(big_vision_layout.siglip_layout(PALI.vision, True), reader)
    rest = {"txt/Embed_0/embedding": np.ones((4, 2)), "img/MAPHead_0/probe": np.ones((1, 1, 16)), "t": np.ones(1)}
    sinks.write_npz(tmp_path / "siglip.npz", [*tower, *rest.items()])
    import_weights(tmp_path / "again", model=folder, vision=tmp_path / "siglip.npz")
    one, two = stored(tmp_path / "again"), stored(folder)
    vision = [name for name in two if name.startswith("vision/")]
    assert_same({name: one[name] for name in vision}, {name: two[name] for name in vision})


RESTORE = """
import sys
import jax, numpy as np, pathlib
from rt2_jax.models import ModelConfig, make_backbone
from rt2_jax.parallel import make_mesh, shardings
from rt2_jax.bundle.store import load_model, open_folder
from tests.convert.models import flat, stored

folder = pathlib.Path(sys.argv[1])
opened = open_folder(folder)
backbone = make_backbone(opened.spec.model)
mesh = make_mesh({"fsdp": 2, "tensor": 2})
shapes = jax.eval_shape(backbone.init, jax.random.key(0))
params = flat(load_model(opened, shardings(backbone.logical_axes(), mesh, shapes))[1])
kernel = params["decoder/blocks/mlp/up/kernel"]
assert kernel.addressable_shards[0].data.shape == (3, 6, 10), kernel.addressable_shards[0].data.shape
for path, array in stored(folder).items():
    assert np.array_equal(params[path], array), path
"""


def test_each_device_restores_its_shard(tmp_path):
    """What was streamed into a folder loads over a mesh as what a run has saved does."""
    native = native_folder(tmp_path / "ours", MODELS["paligemma_2"])
    import_weights(tmp_path / "streamed", model=native)
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": "."}
    command = [sys.executable, "-c", RESTORE, str(tmp_path / "streamed")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("name", "format", "changes", "message"),
    [
        ("gemma", "big_vision", {}, "no vision tower"),
        ("gemma", "t5x", {}, "no T5"),
        ("gemma", "msgpack", {}, "choose one of transformers, big_vision, t5x"),
        ("gemma", "transformers", {"text": {"parallel_block": True}}, "parallel_block is not Gemma's"),
        ("pali", "transformers", {"vision": {"stem_widths": (8, 8)}}, "stem_widths is not SigLIP's"),
        ("pali", "big_vision", {"vision": {"qk_norm": True}}, "qk_norm is not SigLIP's"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name, format, changes, message, tmp_path):
    folder = native_folder(tmp_path / "ours", MODELS[name].replace(**changes))
    with pytest.raises(UserError, match=message):
        export_weights(folder, tmp_path / "out", format)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]


def test_adapters_are_merged_before_they_go_out(tmp_path):
    lora = LoraConfig("decoder/blocks/attention/query", rank=2, alpha=4.0)
    folder = native_folder(tmp_path / "ours", MODELS["gemma"].replace(lora=lora))
    with pytest.raises(UserError, match="has LoRA adapters, which transformers does not know; merge them"):
        export_weights(folder, tmp_path / "out", "transformers")
    with pytest.raises(UserError, match="has LoRA adapters; merge them into a bundle first"):
        import_weights(tmp_path / "again", model=folder)


def test_ul2_goes_to_transformers_with_a_norm_of_ones(tmp_path):
    folder = native_folder(tmp_path / "ours", MODELS["ul2"])
    export_weights(folder, tmp_path / "out", "transformers")
    imported = import_weights(tmp_path / "again", model=tmp_path / "out")
    arrays = stored(tmp_path / "again")
    np.testing.assert_array_equal(arrays.pop("decoder/norm/scale"), np.ones(12))
    assert_same(arrays, stored(folder))
    assert imported.config.text == dataclasses.replace(MODELS["ul2"].text, decoder_norm_scale=True)
