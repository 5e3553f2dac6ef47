"""What comes in is whole, lands where it belongs, and what is wrong with a source is said in one error."""

import json
import pickle
import shutil

import flax.serialization
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rt2_jax.bundle.spec import read_spec
from rt2_jax.bundle.store import load_bundle, load_model, open_folder
from rt2_jax.convert.exporter import export_weights
from rt2_jax.convert.importer import import_weights
from rt2_jax.convert.params_folder import CHUNK_BYTES, chunk_shape
from rt2_jax.convert.plan import parse_setting
from rt2_jax.convert.resample import resample_positions
from rt2_jax.errors import UserError
from rt2_jax.models import make_backbone
from rt2_jax.policy.load import make_policy
from rt2_jax.tokens import Vocabulary
from rt2_jax.tokens.adapt import adapt_vocabulary
from tests.convert.models import MODELS, PALI, assert_same, native_folder, stored

VISION = "vision/position_embedding"


@pytest.fixture
def t5(tmp_path):
    """A T5 in `transformers` files."""
    export_weights(native_folder(tmp_path / "t5_native", MODELS["t5"]), tmp_path / "t5", "transformers")
    return tmp_path / "t5"


@pytest.fixture
def siglip(tmp_path):
    """A SigLIP tower in `transformers` files."""
    export_weights(native_folder(tmp_path / "pali_native", PALI, seed=1), tmp_path / "pali", "transformers")
    return tmp_path / "pali" / "vision"


def rewrite(folder, change):
    """Changes the tensors of a folder's one safetensors file."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def test_a_tower_and_a_language_model_that_never_met(t5, siglip, tmp_path):
    imported = import_weights(tmp_path / "out", vision=siglip, text=t5)
    found = stored(tmp_path / "out")
    tower, text = stored(tmp_path / "pali_native"), stored(tmp_path / "t5_native")
    for path, array in found.items():
        if not path.startswith("image_projection/"):
            source = tower if path.startswith("vision/") else text
            np.testing.assert_array_equal(array, source[path], err_msg=path)
    assert sorted(imported.new) == ["image_projection/bias", "image_projection/kernel"]
    kernel = found["image_projection/kernel"]
    assert kernel.std() == pytest.approx(16**-0.5, rel=0.2)
    # It is what the model's own init gives, and restores as a model.
    fresh = make_backbone(imported.config).init(jax.random.key(0))
    np.testing.assert_array_equal(kernel, fresh["image_projection"]["kernel"])
    params = load_model(open_folder(tmp_path / "out"))[1]
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    config = read_spec(tmp_path / "out").model
    assert (config.num_images, config.image_size, config.tokens_per_image) == (1, 16, 16)


def test_a_tower_can_replace_a_models_own(siglip, tmp_path):
    model = native_folder(tmp_path / "model", PALI, seed=2)
    imported = import_weights(tmp_path / "out", model=model, vision=siglip)
    found, tower, own = stored(tmp_path / "out"), stored(tmp_path / "pali_native"), stored(model)
    np.testing.assert_array_equal(found[VISION], tower[VISION])
    np.testing.assert_array_equal(found["logits/kernel"], own["logits/kernel"])
    assert len(imported.new) == 2 and not np.array_equal(
        found["image_projection/kernel"], own["image_projection/kernel"]
    )


def test_positions_are_resampled_to_the_frames_size(siglip, t5, tmp_path):
    imported = import_weights(tmp_path / "out", vision=siglip, text=t5, settings={"image_size": 24})
    assert imported.resampled == (16, 36)
    old = stored(tmp_path / "pali_native")[VISION]
    np.testing.assert_array_equal(stored(tmp_path / "out")[VISION], resample_positions(old, 36))


def test_resampling_keeps_what_is_linear_and_averages_when_it_shrinks():
    ramp = np.add.outer(np.arange(8.0), 10 * np.arange(8.0)).reshape(64, 1).astype(np.float32)
    np.testing.assert_array_equal(resample_positions(ramp, 64), ramp)
    up = resample_positions(ramp, 256).reshape(16, 16)
    np.testing.assert_allclose(np.diff(up[2:-2, 5]), 0.5, atol=1e-4)
    np.testing.assert_allclose(np.diff(up[5, 2:-2]), 5.0, atol=1e-4)
    # Antialiased: a pattern finer than the new grid goes to its mean, instead of to whichever pixel is hit.
    stripes = np.tile([1.0, 0.0, 0.0, 1.0], 64).reshape(256, 1).astype(np.float32)  # the middle two alone would give 0
    np.testing.assert_allclose(resample_positions(stripes, 16), 0.5, atol=0.15)
    with pytest.raises(UserError, match="60 position embeddings make no square grid"):
        resample_positions(np.zeros((60, 4), np.float32), 16)


def test_a_longer_vocabulary_extends_both_tables(tmp_path):
    vocabulary = Vocabulary.load()
    model = native_folder(tmp_path / "model", MODELS["t5"])
    imported = import_weights(tmp_path / "out", model=model, vocabulary=vocabulary)
    assert imported.config.vocab_size == vocabulary.size == 2304
    found, old = stored(tmp_path / "out"), stored(model)
    for path, axis in (("token_embedding/embedding", 0), ("logits/kernel", 1)):
        kept, new = np.split(found[path], [128], axis)
        np.testing.assert_array_equal(kept, old[path])
        mean = old[path].mean(axis, dtype=np.float64)
        np.testing.assert_allclose(new, np.broadcast_to(np.expand_dims(mean, axis), new.shape), atol=1e-6)
    assert [line.split(":")[0] for line in imported.new] == ["logits/kernel", "token_embedding/embedding"]
    assert "tokens 128 to 2303" in imported.new[0]
    assert (tmp_path / "out" / "vocabulary.model").read_bytes() == vocabulary.path.read_bytes()
    assert read_spec(tmp_path / "out").vocabulary.sha256 == vocabulary.sha256


def test_a_shorter_vocabulary_is_refused(tmp_path):
    model = native_folder(tmp_path / "model", MODELS["t5"].replace(vocab_size=2432))
    with pytest.raises(
        UserError, match=r"token_embedding/embedding has shape \[2432, 12\].*the model's is \[2304, 12\]"
    ):
        import_weights(tmp_path / "out", model=model, vocabulary=Vocabulary.load())


def test_a_named_size_with_parts_drawn_anew(tmp_path):
    """The way of the small PaLM-E: the shipped model's tower, projection and table, and a decoder of its own."""
    arguments = {"size": "tiny_palm_e", "ignore": ["(encoder|decoder|logits)/.*"], "vocabulary": Vocabulary.load()}
    model = "data/checkpoints/tabletop_vlm"
    with pytest.raises(UserError, match=r"decoder/blocks/attention/key/kernel \[4, 128, 1, 32\] is in no source"):
        import_weights(tmp_path / "out", model=model, **arguments)
    with pytest.raises(UserError, match=r"new 'decode/\.\*' names no parameter"):
        import_weights(tmp_path / "out", model=model, new=["decoder/.*", "decode/.*"], **arguments)
    imported = import_weights(tmp_path / "out", model=model, new=["decoder/.*"], **arguments)
    found, shipped = stored(tmp_path / "out"), load_bundle(model).params
    np.testing.assert_array_equal(found[VISION], shipped["vision"]["position_embedding"])
    np.testing.assert_array_equal(found["token_embedding/embedding"], shipped["token_embedding"]["embedding"])
    assert all(path.startswith("decoder/") for path in imported.new)
    with pytest.raises(UserError, match="decoder/blocks/.* has no place in the model .ignore it by name."):
        import_weights(tmp_path / "out", model=model, new=["decoder/.*"], size="tiny_palm_e")


def test_stored_dtypes_follow_the_source_or_the_wish(t5, tmp_path):
    def halve(tensors):
        tensors["shared.weight"] = tensors["shared.weight"].astype(ml_dtypes.bfloat16)
        tensors["lm_head.weight"] = tensors["lm_head.weight"].astype(np.float16)

    rewrite(t5, halve)
    import_weights(tmp_path / "out", text=t5)
    dtypes = {path: array.dtype.name for path, array in stored(tmp_path / "out").items()}
    assert dtypes.pop("token_embedding/embedding") == "bfloat16"
    assert set(dtypes.values()) == {"float32"}
    import_weights(tmp_path / "out", text=t5, dtype="bfloat16")
    assert {array.dtype.name for array in stored(tmp_path / "out").values()} == {"bfloat16"}


def test_settings_change_the_config(t5, tmp_path):
    imported = import_weights(
        tmp_path / "out", text=t5, settings={"text.activation": "silu", "text.dropout_rate": 0.1, "remat": "none"}
    )
    text = imported.config.text
    assert (text.activation, text.dropout_rate, imported.config.remat) == ("silu", 0.1, "none")
    assert parse_setting("text.dropout_rate=0.1") == ("text.dropout_rate", 0.1)
    assert parse_setting("text.activation=silu") == ("text.activation", "silu")
    with pytest.raises(UserError, match="no field 'text.depth'; it has name, .* text.width"):
        import_weights(tmp_path / "out", text=t5, settings={"text.depth": 3})
    for settings, message in (
        ({"text.heads": 0}, "text.heads is 0, allowed: 1 to"),
        ({"text": 3}, "text is 3"),
        ({"vision": "x"}, "vision is 'x'"),
        ({"image_size": 10**30}, "image_size is 1000000000000000000000000000000, allowed: 1 to"),
        ({"scan_unroll": 1}, "scan_unroll is 1 .int., needs bool"),
        ({"text..heads": 1}, "no field 'text..heads'"),
    ):
        with pytest.raises(UserError, match=message):
            import_weights(tmp_path / "out", text=t5, settings=settings)
    assert parse_setting("text.dropout_rate=NaN") == ("text.dropout_rate", "NaN")
    with pytest.raises(UserError, match="nested too deep"):
        parse_setting("text=" + "[" * 10**5)
    with pytest.raises(UserError, match="setting 'remat' has no value"):
        parse_setting("remat")


def test_pretrained_weights_know_no_robot(t5, foreign, tmp_path):
    (tmp_path / "t5.model").write_bytes(foreign.train("t5"))
    vocabulary = adapt_vocabulary(tmp_path / "t5.model", tmp_path / "adapted.model", corpus=foreign.CORPUS)
    import_weights(tmp_path / "out", text=t5)
    with pytest.raises(UserError, match="has no vocabulary to read and write text with"):
        load_bundle(tmp_path / "out")
    import_weights(tmp_path / "out", text=t5, vocabulary=vocabulary)
    with pytest.raises(UserError, match="weights that know no robot .*; train from them"):
        make_policy(load_bundle(tmp_path / "out"))


def test_nothing_is_left_when_it_fails_and_the_old_folder_stays(t5, tmp_path):
    out = tmp_path / "out"
    import_weights(out, text=t5)
    before = stored(out)
    rewrite(t5, lambda tensors: tensors.pop("encoder.block.1.layer.1.DenseReluDense.wo.weight"))
    with pytest.raises(UserError):
        import_weights(out, text=t5)
    assert_same(stored(out), before)
    assert not (tmp_path / "out.tmp").exists()


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, array):
    return lambda tensors: tensors.update({name: array})


WRONG_TENSORS = {
    "missing": (
        drop("encoder.block.1.layer.1.DenseReluDense.wo.weight"),
        "t5: encoder.block.1.layer.1.DenseReluDense.wo.weight is missing",
    ),
    "one layer misshapen": (
        put("decoder.block.2.layer.2.DenseReluDense.wi_1.weight", np.zeros((19, 12), np.float32)),
        r"decoder.block.2.layer.2.DenseReluDense.wi_1.weight has shape \[19, 12\], the first layer's is \[20, 12\]",
    ),
    "misshapen": (
        put("encoder.final_layer_norm.weight", np.zeros(13, np.float32)),
        r"encoder/norm/scale has shape \[13\] in .*t5, the model's is \[12\]",
    ),
    "heads that do not divide": (
        lambda tensors: [
            tensors.update({f"encoder.block.{i}.layer.0.SelfAttention.q.weight": np.zeros((7, 12), np.float32)})
            for i in range(2)
        ],
        r"SelfAttention.q.weight has shape \[7, 12\], which is not '\(h d\) w'",
    ),
    "left over": (put("adapter.weight", np.zeros((2, 2), np.float32)), r"adapter.weight \[2, 2\] is not used"),
    "a copy that is none": (
        put("encoder.embed_tokens.weight", np.zeros((128, 12), np.float32)),
        "encoder.embed_tokens.weight is not equal to shared.weight",
    ),
    "booleans": (put("shared.weight", np.zeros((128, 12), bool)), "tensor shared.weight is BOOL; needs a float"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors(case, t5, tmp_path):
    change, message = WRONG_TENSORS[case]
    rewrite(t5, change)
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "out", text=t5)


def test_a_repeated_table_is_not_left_over(t5, tmp_path):
    def repeat(tensors):
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].copy()

    rewrite(t5, repeat)
    assert import_weights(tmp_path / "out", text=t5).new == []


def set_config(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) - 100])


def scribble(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def half_an_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def index(tree):
    """Puts an index beside the one file."""
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(tree))


def config_text(text):
    return lambda folder: (folder / "config.json").write_bytes(text)


WRONG_FOLDERS = {
    "truncated": (truncate, "is no whole safetensors file .* fetch it again"),
    "scribbled": (scribble, "is no whole safetensors file .* fetch it again"),
    "pickle": (pickled, "pytorch_model.bin is a pickle, which can run code when read: save it as safetensors"),
    "a file of the index missing": (half_an_index, "names model-00002-of-00002.safetensors, which is missing"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read .* whole folder"),
    "a broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "an unknown model": (set_config(model_type="llama"), "model_type 'llama' is not read here; the known ones are t5"),
    "T5 1.0": (set_config(feed_forward_proj="relu"), "'relu' is T5 1.0, whose MLP has no gate; bring T5 1.1"),
    "another activation": (set_config(feed_forward_proj="gated-mish"), "activation 'mish' is not built here"),
    "another epsilon": (
        set_config(layer_norm_epsilon=1e-5),
        "layer_norm_epsilon is 1e-05, .* here has 1e-06",
    ),
    "a config that is a list": (config_text(b"[]"), "config.json holds a list, it must hold one JSON object"),
    "a config of other bytes": (config_text(b'{"model_type": "\xff"}'), "config.json is not JSON"),
    "a config too deep": (config_text(b"[" * 10**5), "config.json is nested more than 64 levels deep"),
    "an odd model type": (set_config(model_type=["t5"]), "model_type \\['t5'\\] is not read here"),
    "a width that is text": (set_config(d_model="12"), r"config.json: d_model is '12' \(str\), needs int"),
    "no heads": (set_config(num_heads=0), "config.json: num_heads is 0, allowed: 1 to"),
    "half a layer": (set_config(num_layers=1.5), r"config.json: num_layers is 1.5 \(float\), needs int"),
    "endless layers": (set_config(num_layers=10**30), "config.json: num_layers is 1000000000000000000000000000000"),
    "a vocabulary that is null": (set_config(vocab_size=None), "config.json: vocab_size is None, needs int"),
    "an activation that is a number": (set_config(feed_forward_proj=3), "feed_forward_proj is 3 .int., needs str"),
    "a switch that is a number": (set_config(tie_word_embeddings=1), "tie_word_embeddings is 1 .int., needs bool"),
    "an epsilon that is text": (set_config(layer_norm_epsilon="x"), "layer_norm_epsilon is 'x' .str., needs float"),
    "two buckets": (set_config(relative_attention_num_buckets=2), "relative_buckets is 2, allowed: 4 to"),
    "a gemma without fields": (set_config(model_type="gemma"), "hidden_size is missing; set it"),
    "a paligemma without parts": (set_config(model_type="paligemma"), "text_config is missing; set it"),
    "a siglip of text": (set_config(model_type="siglip", vision_config=3), "vision_config is 3, needs a group"),
    "an index without a map": (index({}), "index.json: weight_map is missing"),
    "an empty index": (index({"weight_map": {}}), "index.json: weight_map is {}, allowed: at least 1 entries"),
    "an index that is a list": (index([]), "index.json holds a list, it must hold one JSON object"),
    "a map that is a list": (index({"weight_map": ["a"]}), "weight_map is .'a'. .list., needs a dict of str"),
    "a map of lists": (index({"weight_map": {"a": ["b"]}}), "weight_map.a is .'b'. .list., needs str"),
    "a map of nothing": (index({"weight_map": {"a": ""}}), "weight_map.a is '', allowed: 1 to 255 characters"),
    "a map of null": (index({"weight_map": {"a": None}}), "weight_map.a is None, needs str"),
    "a map out of the folder": (index({"weight_map": {"a": "../x"}}), "names '../x', which is no file beside it"),
    "a map to the root": (index({"weight_map": {"a": "/x"}}), "names '/x', which is no file beside it"),
    "a map upwards": (index({"weight_map": {"a": ".."}}), r"names '\.\.', which is no file beside it"),
    "empty": (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "is no checkpoint known here"),
    "absent": (shutil.rmtree, "does not exist; name a transformers folder"),
}


@pytest.mark.parametrize("case", WRONG_FOLDERS)
def test_wrong_folders(case, t5, tmp_path):
    change, message = WRONG_FOLDERS[case]
    change(t5)
    with pytest.raises(UserError, match=message) as caught:
        import_weights(tmp_path / "out", text=t5)
    assert "\n" not in str(caught.value)


@pytest.fixture
def npz(tmp_path):
    export_weights(native_folder(tmp_path / "native", MODELS["paligemma"]), tmp_path / "out", "big_vision")
    return tmp_path / "out" / "paligemma.npz"


def rewrite_npz(path, change):
    tensors = dict(np.load(path))
    change(tensors)
    np.savez(path, **tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("params/llm/layers/mlp/linear"), "has no tensor llm/layers/mlp/linear"),
        (drop("params/img/head/bias"), "img/head/bias is missing"),
        (put("params/img/extra", np.zeros(3)), r"img/extra \[3\] is not used"),
        (put("params/img/head/bias", np.array({}, object)), "is a pickle, which can run code when read"),
        (put("params/img/head/bias", np.zeros(5, np.float32)), r"image_projection/bias has shape \[5\]"),
        (lambda tensors: tensors.clear(), "holds no ViT, SigLIP or PaliGemma"),
        (put("params/img/embedding/kernel", np.zeros(())), r"embedding/kernel has shape \[\], needs 4 axes"),
        (put("params/llm/layers/mlp/linear", np.zeros(3)), r"mlp/linear has shape \[3\], needs 3 axes"),
        (put("params/llm/layers/attn/kv_einsum/w", np.zeros((3, 2))), r"kv_einsum/w has shape \[3, 2\], needs 5 axes"),
        (put("params/llm/embedder/input_embedding", np.zeros((0, 4))), r"has shape \[0, 4\], needs 2 axes"),
    ],
)
def test_wrong_npz(change, message, npz, tmp_path):
    rewrite_npz(npz, change)
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "again", model=npz)


def test_a_cut_npz(npz, tmp_path):
    npz.write_bytes(npz.read_bytes()[:3000])
    with pytest.raises(UserError, match="is no whole .npz file .* fetch it again"):
        import_weights(tmp_path / "again", model=npz)


def test_a_damaged_npz(npz, tmp_path):
    data = bytearray(npz.read_bytes())
    at = data.find(b"embedder/input_embedding.npy") + 400
    data[at : at + 64] = b"\x00" * 64
    npz.write_bytes(bytes(data))
    with pytest.raises(UserError, match="embedder/input_embedding cannot be read"):
        import_weights(tmp_path / "again", model=npz)


def test_wrong_t5x_folders(tmp_path):
    export_weights(native_folder(tmp_path / "native", MODELS["t5"]), tmp_path / "t5x", "t5x")
    table = tmp_path / "t5x" / "target.token_embedder.embedding"
    assert (table / "0.0").is_file()
    (table / "0.0").unlink()
    with pytest.raises(UserError, match="tensor token_embedder/embedding lacks its chunk 0.0"):
        import_weights(tmp_path / "again", text=tmp_path / "t5x")
    shutil.rmtree(table)
    with pytest.raises(UserError, match="tensor token_embedder/embedding cannot be read"):
        import_weights(tmp_path / "again", text=tmp_path / "t5x")
    zarray = tmp_path / "t5x" / "target.encoder.encoder_norm.scale" / ".zarray"
    for text in ("[]", "{}", '{"chunks": 3}', ""):
        if zarray.is_file():
            zarray.write_text(text)
            with pytest.raises(UserError, match="cannot be read|lacks its chunk"):
                import_weights(tmp_path / "again", text=tmp_path / "t5x")
    (tmp_path / "t5x" / "checkpoint").write_bytes(b"\xc1\x00")
    with pytest.raises(UserError, match="is no whole T5X checkpoint"):
        import_weights(tmp_path / "again", text=tmp_path / "t5x")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "is no whole T5X checkpoint"),
        (None, "is no whole T5X checkpoint"),
        ("text", "is no whole T5X checkpoint"),
        ({"a": 3}, "tensor a is 3, no array; fetch"),
        ({"a": {"b": "text"}}, "tensor a/b is 'text', no array"),
        ({"a": {"b": None}}, "tensor a/b is None, no array"),
        ({"a": {"driver": 3}}, "tensor a is {'driver': 3}, no array"),
        ({"a": {"driver": "zarr", "kvstore": 3}}, "tensor a is .*, no array"),
        ({"a": {"driver": "zarr", "kvstore": {"path": "x/.."}}}, "tensor a is .*, no array"),
        ({"a": {"driver": "zarr", "kvstore": {"path": 3}}}, "tensor a cannot be read"),
        ({}, "has no tensor encoder/relpos_bias/rel_embedding"),
        ({"encoder": {"relpos_bias": {"rel_embedding": np.zeros(3)}}}, r"rel_embedding has shape \[3\], needs 2 axes"),
        ({"encoder": {"relpos_bias": {"rel_embedding": np.zeros((0, 32))}}}, r"shape \[0, 32\], needs 2 axes that are"),
    ],
)
def test_wrong_t5x_trees(target, message, tmp_path):
    tree = {"optimizer": {"target": target}}
    (tmp_path / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(tree))
    with pytest.raises(UserError, match=message) as caught:
        import_weights(tmp_path / "again", text=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_path_that_no_file_system_takes(tmp_path):
    for path in (tmp_path / ("x" * 300), "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="does not exist; name a transformers folder"):
            import_weights(tmp_path / "out", text=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no weights are named"),
        ({"vision": "t5"}, "has no vision model; name one that has"),
        ({"text": "pali/vision"}, "has no text model; name one that has"),
        ({"vision": "pali/vision"}, "has no language model; name a text checkpoint beside it"),
        ({"text": "t5", "dtype": "int8"}, "dtype 'int8' is unknown"),
        ({"text": "t5", "new": ["("]}, "is no regular expression"),
        ({"text": "t5", "size": "huge"}, "model size 'huge' is unknown"),
    ],
)
def test_wrong_arguments(arguments, message, t5, siglip, tmp_path):
    paths = {name: tmp_path / value for name, value in arguments.items() if name in ("vision", "text")}
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "out", **{**arguments, **paths})


def test_chunks_are_of_one_layer_and_bounded():
    assert chunk_shape((50, 4096, 16384), 4) == [1, 2048, 4096]
    assert chunk_shape((256384, 4096), 4) == [4006, 2048]
    assert chunk_shape((7,), 4) == [7]
    for shape in ((50, 4096, 16384), (256384, 4096), (48, 6144, 48, 128)):
        chunks = chunk_shape(shape, 4)
        assert 4 * np.prod(chunks) <= CHUNK_BYTES
