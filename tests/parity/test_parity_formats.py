"""T5X folders and big_vision files, written here by hand in their documented layout, against `transformers`.

Nothing of the project's own tables is used to write them: what they hold comes from the other model's state.
"""

import flax.serialization
import flax.traverse_util
import jax
import numpy as np
import pytest
import tensorstore
import torch
import transformers

from rt2_jax.convert.exporter import export_weights
from tests.parity.conftest import close, load, randomize

VOCAB = 96
T5 = {
    "vocab_size": VOCAB, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "dropout_rate": 0.0,
}  # fmt: skip
KERNELS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def their_t5(model_class, config_class):
    theirs = model_class(config_class(**T5))
    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.clone())
    theirs.config.tie_word_embeddings = False
    randomize(theirs)
    return theirs, {name: value.detach().numpy() for name, value in theirs.state_dict().items()}


def t5x_layer(state, stack, i):
    """One layer's tensors by T5X's name, 2-D kernels [in, out]."""
    attentions = [("attention", 0, "SelfAttention")]
    norms = ["pre_attention_layer_norm", "pre_mlp_layer_norm"]
    if stack == "decoder":
        attentions = [("self_attention", 0, "SelfAttention"), ("encoder_decoder_attention", 1, "EncDecAttention")]
        norms = ["pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm"]
    root = f"{stack}.block.{i}.layer"
    tensors = {f"{name}/scale": state[f"{root}.{n}.layer_norm.weight"] for n, name in enumerate(norms)}
    for name, n, theirs in attentions:
        for kernel, letter in KERNELS.items():
            tensors[f"{name}/{kernel}/kernel"] = state[f"{root}.{n}.{theirs}.{letter}.weight"].T
    for name in ("wi_0", "wi_1", "wo"):
        tensors[f"mlp/{name}/kernel"] = state[f"{root}.{len(attentions)}.DenseReluDense.{name}.weight"].T
    return tensors


def t5x_tensors(state, scanned):
    tensors = {
        "token_embedder/embedding": state["shared.weight"],
        "decoder/logits_dense/kernel": state["lm_head.weight"].T,
    }
    for stack in ("encoder", "decoder"):
        tensors[f"{stack}/{stack}_norm/scale"] = state[f"{stack}.final_layer_norm.weight"]
        layers = [t5x_layer(state, stack, i) for i in range(2)]
        bias = f"{stack}.block.{{}}.layer.0.SelfAttention.relative_attention_bias.weight"
        if not scanned:
            tensors[f"{stack}/relpos_bias/rel_embedding"] = state[bias.format(0)].T
            for i, layer in enumerate(layers):
                tensors |= {f"{stack}/layers_{i}/{name}": array for name, array in layer.items()}
            continue
        for i, layer in enumerate(layers):
            layer["relpos_bias/rel_embedding"] = state[bias.format(i)].T
            for name in layer:
                # Attention kernels are 3-D: [d, h, hd], and [h, hd, d] on the way out.
                if name.endswith("out/kernel"):
                    layer[name] = layer[name].reshape(4, 8, 24)
                elif "attention/" in name:
                    layer[name] = layer[name].reshape(24, 4, 8)
        for name in layers[0]:
            tensors[f"{stack}/{stack}/{name}"] = np.stack([layer[name] for layer in layers], axis=1)
    return tensors


def write_t5x(folder, tensors):
    """Arrays of 100 numbers and more as gzip zarr, as T5X writes large ones, the rest in the msgpack file."""
    folder.mkdir()
    target = {}
    for name, array in tensors.items():
        if array.size >= 100:
            dotted = "target." + name.replace("/", ".")
            spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / dotted)}}
            metadata = {
                "shape": list(array.shape),
                "chunks": [-(-size // 2) for size in array.shape],
                "dtype": "<f4",
                "compressor": {"id": "gzip"},
            }
            tensorstore.open({**spec, "metadata": metadata}, create=True).result().write(array).result()
            kvstore = {"bucket": "some-bucket", "driver": "gcs", "path": f"run/checkpoint_1000/{dotted}"}
            array = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
        target[tuple(name.split("/"))] = array
    tree = {"version": 3, "optimizer": {"target": flax.traverse_util.unflatten_dict(target), "state": {"step": 1000}}}
    (folder / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(tree))
    return folder


@pytest.mark.parametrize("scanned", [False, True], ids=["mt5", "umt5"])
def test_t5x(scanned, tmp_path):
    family = "UMT5" if scanned else "MT5"
    classes = [getattr(transformers, f"{family}{kind}") for kind in ("ForConditionalGeneration", "Config")]
    theirs, state = their_t5(*classes)
    folder = write_t5x(tmp_path / "t5x", t5x_tensors(state, scanned))
    backbone, params = load(folder, tmp_path, role="text")
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, VOCAB, (2, 9)).astype(np.int32)
    prompt[1, 4:] = 0
    target = rng.integers(2, VOCAB, (2, 8)).astype(np.int32)
    ids = torch.from_numpy(prompt.astype(np.int64))
    shifted = torch.from_numpy(np.pad(target[:, :-1], ((0, 0), (1, 0))).astype(np.int64))
    wanted = theirs(input_ids=ids, attention_mask=(ids != 0).long(), decoder_input_ids=shifted).logits.detach()
    images = np.zeros((2, 0, 224, 224, 3), np.uint8)
    close(jax.jit(backbone.logits)(params, images, prompt, target), wanted)


VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4,
    "image_size": 16, "projection_dim": 24, "model_type": "siglip_vision_model",
}  # fmt: skip
GEMMA = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip


def big_vision_vit(state, scanned):
    """Conv kernels [p, p, 3, w], attention kernels [w, h, d] and [h, d, w], dense kernels [in, out]."""
    tower = "model.vision_tower."
    tensors = {
        "embedding/kernel": state[f"{tower}embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state[f"{tower}embeddings.patch_embedding.bias"],
        "pos_embedding": state[f"{tower}embeddings.position_embedding.weight"][None],
        "Transformer/encoder_norm/scale": state[f"{tower}post_layernorm.weight"],
        "Transformer/encoder_norm/bias": state[f"{tower}post_layernorm.bias"],
    }
    layers = []
    for i in range(2):
        root, layer = f"{tower}encoder.layers.{i}.", {}
        for n in (0, 1):
            layer[f"LayerNorm_{n}/scale"] = state[f"{root}layer_norm{n + 1}.weight"]
            layer[f"LayerNorm_{n}/bias"] = state[f"{root}layer_norm{n + 1}.bias"]
            layer[f"MlpBlock_0/Dense_{n}/kernel"] = state[f"{root}mlp.fc{n + 1}.weight"].T
            layer[f"MlpBlock_0/Dense_{n}/bias"] = state[f"{root}mlp.fc{n + 1}.bias"]
        for name in ("query", "key", "value"):
            weight, bias = (state[f"{root}self_attn.{name[0]}_proj.{kind}"] for kind in ("weight", "bias"))
            layer[f"MultiHeadDotProductAttention_0/{name}/kernel"] = weight.T.reshape(32, 2, 16)
            layer[f"MultiHeadDotProductAttention_0/{name}/bias"] = bias.reshape(2, 16)
        out = state[f"{root}self_attn.out_proj.weight"].T.reshape(2, 16, 32)
        layer["MultiHeadDotProductAttention_0/out/kernel"] = out
        layer["MultiHeadDotProductAttention_0/out/bias"] = state[f"{root}self_attn.out_proj.bias"]
        layers.append(layer)
    for name in layers[0]:
        if scanned:
            tensors[f"Transformer/encoderblock/{name}"] = np.stack([layer[name] for layer in layers])
        else:
            tensors |= {f"Transformer/encoderblock_{i}/{name}": layer[name] for i, layer in enumerate(layers)}
    return {f"img/{name}": array for name, array in tensors.items()}


def big_vision_gemma(state, second, kv_heads):
    """Einsum weights: q [N, d, h], kv [2, K, d, h], out [N, h, d], gate and up in one [2, d, m]."""
    text = "model.language_model."

    def stack(arrange):
        return np.stack([arrange(f"{text}layers.{i}.") for i in range(2)])

    def heads(name):
        return lambda root: state[f"{root}self_attn.{name}_proj.weight"].reshape(-1, 8, 24).transpose(0, 2, 1)

    norms = {"pre_attention_norm": "input_layernorm", "pre_ffw_norm": "post_attention_layernorm"}
    if second:
        norms = {
            "pre_attention_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "pre_ffw_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
    tensors = {
        "embedder/input_embedding": state[f"{text}embed_tokens.weight"],
        "final_norm/scale": state[f"{text}norm.weight"],
        "layers/attn/q_einsum/w": stack(heads("q")),
        "layers/attn/kv_einsum/w": np.stack([stack(heads("k")), stack(heads("v"))], axis=1),
        "layers/attn/attn_vec_einsum/w": stack(
            lambda root: state[f"{root}self_attn.o_proj.weight"].T.reshape(4, 8, 24)
        ),
        "layers/mlp/gating_einsum": stack(
            lambda root: np.stack([state[f"{root}mlp.{name}_proj.weight"].T for name in ("gate", "up")])
        ),
        "layers/mlp/linear": stack(lambda root: state[f"{root}mlp.down_proj.weight"].T),
    }
    for ours, theirs in norms.items():
        tensors[f"layers/{ours}/scale"] = stack(lambda root, theirs=theirs: state[f"{root}{theirs}.weight"])
    assert tensors["layers/attn/kv_einsum/w"].shape == (2, 2, kv_heads, 24, 8)
    return {f"llm/{name}": array for name, array in tensors.items()}


@pytest.mark.parametrize(("second", "scanned"), [(False, True), (True, False)], ids=["paligemma", "paligemma_2"])
def test_big_vision_paligemma(second, scanned, tmp_path):
    kv_heads = 2 if second else 1
    text = {**GEMMA, "model_type": "gemma2" if second else "gemma", "num_key_value_heads": kv_heads}
    text |= {"query_pre_attn_scalar": 8, "sliding_window": 4096} if second else {}
    config = transformers.PaliGemmaConfig(
        vision_config=VIT, text_config=text, projection_dim=24, image_token_index=95, attn_implementation="eager"
    )
    theirs = randomize(transformers.PaliGemmaForConditionalGeneration(config))
    state = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    tensors = big_vision_vit(state, scanned) | big_vision_gemma(state, second, kv_heads)
    tensors["img/head/kernel"] = state["model.multi_modal_projector.linear.weight"].T
    tensors["img/head/bias"] = state["model.multi_modal_projector.linear.bias"]
    np.savez(tmp_path / "paligemma.npz", **{f"params/{name}": array for name, array in tensors.items()})
    backbone, params = load(tmp_path / "paligemma.npz", tmp_path)

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    prompt, target = rng.integers(3, 95, (2, 5)).astype(np.int32), rng.integers(3, 95, (2, 6)).astype(np.int32)
    ids = np.concatenate([np.full((2, 16), 95), prompt, target], 1)
    kind = np.arange(ids.shape[1])[None].repeat(2, 0) >= 21
    wanted = theirs(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.ones(ids.shape, dtype=torch.long),
        token_type_ids=torch.from_numpy(kind.astype(np.int64)),
        pixel_values=torch.from_numpy(frames.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2),
    ).logits[:, -7:-1]
    close(jax.jit(backbone.logits)(params, frames[:, None], prompt, target), wanted.detach())


def test_what_goes_out_is_read_by_transformers(save, tmp_path):
    """A folder of theirs, in, out again, and read by them: the same logits to the last bit."""
    text = {**GEMMA, "model_type": "gemma2", "num_key_value_heads": 2, "sliding_window": 4}
    config = transformers.PaliGemmaConfig(
        vision_config=VIT, text_config=text, projection_dim=24, image_token_index=95, attn_implementation="eager"
    )
    theirs = randomize(transformers.PaliGemmaForConditionalGeneration(config))
    load(save(theirs), tmp_path, settings={"text.image_id": 95})
    export_weights(tmp_path / "ours", tmp_path / "out", "transformers")
    again = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    ).eval()
    ids = torch.tensor([[95] * 16 + [5, 6, 7, 8]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.rand(1, 3, 16, 16)}
    torch.testing.assert_close(again(**inputs).logits, theirs(**inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["T5", "UMT5"])
def test_a_t5_that_goes_out_is_read_by_transformers(family, save, tmp_path):
    classes = [getattr(transformers, f"{family}{kind}") for kind in ("ForConditionalGeneration", "Config")]
    theirs, _ = their_t5(*classes)
    load(save(theirs), tmp_path, role="text")
    export_weights(tmp_path / "ours", tmp_path / "out", "transformers")
    again = classes[0].from_pretrained(tmp_path / "out").eval()
    again.config.tie_word_embeddings = False
    ids = torch.tensor([[5, 6, 7, 8, 1]])
    torch.testing.assert_close(
        again(input_ids=ids, decoder_input_ids=ids).logits,
        theirs(input_ids=ids, decoder_input_ids=ids).logits,
        rtol=0, atol=0,
    )  # fmt: skip
