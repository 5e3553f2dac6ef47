"""Eight action tokens by the sampler and by `generate` of transformers, on the same weights, frames and prompts.

PYTHONPATH=. python benchmarks/decode_speed.py --out decode_speed.json

A SigLIP tower of 256 tokens and a T5 1.1 of six and six layers, 38M parameters in float32, random weights. Both sides
choose among the action's integers alone (the reference by a mask that is made once and added to its logits), and both
must choose the same tokens. Each side is a process of its own, with all the cores while it is its turn: turns
alternate, and open with a call that is not timed. The floors are measured in the turns of ours:

* of reading the frame and the prompt (prefill): the time that its matrix products take one after another, with
  nothing between them;
* of the steps that follow: the time that reading their bytes takes (the decoder's kernels, its caches, the rows of the
  output table that can be sampled), as often as there are steps.
"""

import argparse
import json
import multiprocessing
import pathlib
import platform
import statistics
import tempfile
import time

import numpy as np

WIDTH, HEADS, HEAD_DIM, MLP, LAYERS = 384, 6, 64, 1024, 6
IMAGE, PATCH, PROMPT, TOKENS = 224, 14, 32, 8


def main() -> None:
    """Prints a table and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="a JSON file for the figures")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=12, help="of each side (default 12)")
    parser.add_argument("--calls", type=int, default=3, help="timed, in a turn (default 3)")
    parser.add_argument("--vocabulary", type=int, default=2304, help="tokens (default 2304)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side(make, pathlib.Path(folder), arguments.vocabulary) for make in (_reference, _ours)]
        with sides[0] as theirs, sides[1] as ours:
            figures = [_compare(ours, theirs, batch, arguments) for batch in arguments.batches]
            parameters = ours.ask("parameters")
    report = {
        "machine": f"{_processor()}, {multiprocessing.cpu_count()} cores",
        "parameters": parameters,
        "vocabulary": arguments.vocabulary,
        "prompt": PROMPT,
        "tokens": TOKENS,
        "batches": figures,
    }
    print(f"{report['machine']}; {parameters / 1e6:.1f}M parameters, float32, milliseconds (median)")
    columns = ("batch", "ours", "generate", "ratio", "prefill", "its floor", "ratio", "steps", "their floor", "ratio")
    print(" | ".join(f"{column:>11}" for column in columns))
    for row in figures:
        cells = (
            row["ours"],
            row["generate"],
            row["ratio"],
            row["prefill"],
            row["prefill_floor"],
            row["prefill_ratio"],
            row["steps"],
            row["steps_floor"],
            row["steps_ratio"],
        )
        print(" | ".join([f"{row['batch']:>11}", *(f"{cell:>11.2f}" for cell in cells)]))
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")


def _compare(ours: "Side", theirs: "Side", batch: int, arguments: argparse.Namespace) -> dict:
    """The figures of one batch size, from turns that alternate."""
    wanted, found = theirs.ask("tokens", batch), ours.ask("tokens", batch)
    if wanted != found:
        raise SystemExit(f"batch {batch}: the tokens differ: {wanted} and {found}")
    seen = {name: [] for name in ("generate", "ours", "prefill", "prefill_floor", "steps", "steps_floor")}
    for _ in range(arguments.turns):
        seen["generate"] += theirs.ask("generate", batch, arguments.calls)
        for name in ("ours", "prefill", "prefill_floor", "steps", "steps_floor"):
            seen[name] += ours.ask(name, batch, arguments.calls)
    middle = {name: statistics.median(times) for name, times in seen.items()}
    ratios = [one / other for one, other in zip(seen["ours"], seen["generate"], strict=True)]
    return {
        "batch": batch,
        **middle,
        "ratio": middle["ours"] / middle["generate"],
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
        "prefill_ratio": middle["prefill"] / middle["prefill_floor"],
        "steps_ratio": middle["steps"] / middle["steps_floor"],
    }


class Side:
    """A process that makes one side and answers questions about it."""

    def __init__(self, make, folder: pathlib.Path, vocabulary: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, folder, vocabulary, other), daemon=True)

    def __enter__(self) -> "Side":
        self._process.start()
        self._pipe.recv()  # it is ready
        return self

    def __exit__(self, *_) -> None:
        self._pipe.send(None)
        self._process.join()

    def ask(self, name: str, *arguments):
        """What its method of that name answers."""
        self._pipe.send((name, arguments))
        return self._pipe.recv()


def _serve(make, folder: pathlib.Path, vocabulary: int, pipe) -> None:
    side = make(folder, vocabulary)
    pipe.send(True)
    while (question := pipe.recv()) is not None:
        name, arguments = question
        if name in ("parameters", "tokens"):
            pipe.send(side[name](*arguments))
        else:
            pipe.send(_timed(side[name](arguments[0]), arguments[1]))


def _timed(call, count: int) -> list[float]:
    """Milliseconds of `count` calls, after one that is not timed."""
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times[1:]


def _inputs(batch: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    images = rng.integers(0, 256, (batch, 1, IMAGE, IMAGE, 3), np.uint8)
    return images, rng.integers(3, vocabulary, (batch, PROMPT)).astype(np.int32)


def _candidates(vocabulary: int) -> np.ndarray:
    """The ids of the integers 0 .. 255, somewhere in the vocabulary; terminate may be 0 or 1."""
    integers = np.arange(256) + vocabulary // 2
    allowed = np.zeros((TOKENS, vocabulary), bool)
    allowed[:, integers] = True
    allowed[0] = False
    allowed[0, integers[:2]] = True
    return allowed


# --- the reference ----------------------------------------------------------------------------------------------------


def _reference(folder: pathlib.Path, vocabulary: int) -> dict:
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(multiprocessing.cpu_count())
    tower = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            image_size=IMAGE,
            patch_size=PATCH,
            vision_use_head=False,
        )
    ).eval()
    text = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=vocabulary,
            d_model=WIDTH,
            d_kv=HEAD_DIM,
            d_ff=MLP,
            num_heads=HEADS,
            num_layers=LAYERS,
            num_decoder_layers=LAYERS,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
            dropout_rate=0.0,
            tie_word_embeddings=True,
        )
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in [*tower.parameters(), *text.parameters()]:
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        text.shared.weight.mul_(WIDTH**0.5)  # the tied head divides by it
    projection = torch.nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        projection.weight.copy_(torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5)
        projection.bias.zero_()
    tower.save_pretrained(folder / "vision")
    text.save_pretrained(folder / "text")
    np.savez(folder / "projection.npz", kernel=projection.weight.detach().numpy().T)
    mask = torch.where(torch.from_numpy(_candidates(vocabulary)), 0.0, float("-inf"))

    class Allowed(transformers.LogitsProcessor):
        def __call__(self, ids, scores):
            return scores + mask[ids.shape[1] - 1]

    def generate(images: np.ndarray, prompt: np.ndarray):
        with torch.inference_mode():
            pixels = torch.from_numpy(images[:, 0]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
            seen = projection(tower(pixel_values=pixels).last_hidden_state)
            asked = text.shared(torch.from_numpy(prompt.astype(np.int64)))
            encoded = text.encoder(inputs_embeds=torch.cat([seen, asked], dim=1))
            return text.generate(
                encoder_outputs=encoded,
                max_new_tokens=TOKENS,
                do_sample=False,
                use_cache=True,
                eos_token_id=None,
                logits_processor=transformers.LogitsProcessorList([Allowed()]),
            )[:, 1:]

    def tokens(batch: int) -> list:
        return generate(*_inputs(batch, vocabulary)).tolist()

    def timed(batch: int):
        inputs = _inputs(batch, vocabulary)
        return lambda: generate(*inputs)

    return {"tokens": tokens, "generate": timed}


# --- ours -------------------------------------------------------------------------------------------------------------


def _ours(folder: pathlib.Path, vocabulary: int) -> dict:
    import jax
    import jax.numpy as jnp

    from rt2_jax.bundle.store import load_model, open_folder
    from rt2_jax.convert.importer import import_weights
    from rt2_jax.models.backbone import for_decoding
    from rt2_jax.models.sizes import count
    from rt2_jax.policy.sampler import make_sampler
    from rt2_jax.tokens.grammar import FORBIDDEN, Grammar

    settings = {"compute_dtype": "float32", "remat": "none"}
    import_weights(folder / "ours", vision=folder / "vision", text=folder / "text", settings=settings)
    backbone, params = load_model(open_folder(folder / "ours"))
    kernel = np.load(folder / "projection.npz")["kernel"]
    params = {**params, "image_projection": {"kernel": kernel, "bias": np.zeros(WIDTH, np.float32)}}
    backbone, params = for_decoding(backbone, jax.tree.map(jnp.asarray, params))

    # The grammar of an action in this vocabulary: position by position, then EOS (token 1).
    allowed = _candidates(vocabulary)
    traits = np.zeros((vocabulary, 3), np.int32)
    traits[:, :2] = allowed[:2].T
    traits[1, 2] = 1
    classes, token_class = np.unique(traits, axis=0, return_inverse=True)
    next_state = np.full((TOKENS + 2, len(classes)), FORBIDDEN, np.int32)
    for position in range(TOKENS):
        next_state[position, classes[:, min(position, 1)] > 0] = position + 1
    next_state[TOKENS, classes[:, 2] > 0] = TOKENS + 1
    steps_to_end = np.arange(TOKENS + 1, -1, -1).astype(np.int32)
    grammar = Grammar(token_class.reshape(-1).astype(np.int32), next_state, steps_to_end, {"action": 0}, TOKENS + 1, 8)
    sampler = make_sampler(backbone, grammar, TOKENS + 1, modes=("action",))
    key = jax.random.key(0)

    def sample(batch: int):
        images, prompt = _inputs(batch, vocabulary)
        start = np.zeros(batch, np.int32)
        return lambda: jax.block_until_ready(sampler(params, images, prompt, start, key))

    def prefill(batch: int):
        images, prompt = _inputs(batch, vocabulary)
        program = jax.jit(lambda params, images, prompt: backbone.prefill(params, images, prompt, TOKENS + 1, ids=ids))
        return lambda: jax.block_until_ready(program(params, images, prompt))

    ids = np.flatnonzero(allowed.any(0)).astype(np.int32)

    @jax.jit
    def following(params, cache, token):
        def step(index, carry):
            cache, token = carry
            logits, cache = backbone.decode_step(params, cache, token, index - 1, ids=ids)
            return cache, jnp.asarray(ids)[jnp.argmax(logits, axis=-1)]

        return jax.lax.fori_loop(1, TOKENS, step, (cache, token))[1]

    def steps(batch: int):
        images, prompt = _inputs(batch, vocabulary)
        read = jax.jit(lambda params, images, prompt: backbone.prefill(params, images, prompt, TOKENS + 1, ids=ids))
        _, cache = read(params, images, prompt)
        token = jnp.full(batch, int(ids[0]), jnp.int32)
        return lambda: jax.block_until_ready(following(params, cache, token))

    def kept(make):
        made = {}

        def one(batch: int):
            if batch not in made:
                made[batch] = make(batch)
            return made[batch]

        return one

    return {
        "parameters": lambda: count(params),
        "tokens": lambda batch: np.asarray(sample(batch)().tokens)[:, :TOKENS].tolist(),
        "ours": kept(sample),
        "prefill": kept(prefill),
        "steps": kept(steps),
        "prefill_floor": kept(_prefill_products),
        "steps_floor": kept(lambda batch: _step_bytes(batch, rows=int(allowed.any(0).sum()))),
    }


def _prefill_products(batch: int):
    """The matrix products of a prefill, one after another in one program."""
    import jax
    import jax.numpy as jnp

    patches, tokens = (IMAGE // PATCH) ** 2, (IMAGE // PATCH) ** 2 + PROMPT
    seen, read = batch * patches, batch * tokens
    heads = batch * HEADS
    dense = [(1, seen, PATCH * PATCH * 3, WIDTH), (1, seen, WIDTH, WIDTH)]
    dense += [(1, seen, WIDTH, WIDTH)] * (4 * LAYERS)
    dense += [(1, seen, WIDTH, 4 * WIDTH), (1, seen, 4 * WIDTH, WIDTH)] * LAYERS
    dense += [(1, read, WIDTH, WIDTH)] * (6 * LAYERS)  # the encoder's four, the keys and values of cross-attention
    dense += [(1, read, WIDTH, MLP), (1, read, WIDTH, MLP), (1, read, MLP, WIDTH)] * LAYERS
    dense += [(heads, patches, HEAD_DIM, patches), (heads, patches, patches, HEAD_DIM)] * LAYERS
    dense += [(heads, tokens, HEAD_DIM, tokens), (heads, tokens, tokens, HEAD_DIM)] * LAYERS
    times = {shape: dense.count(shape) for shape in dict.fromkeys(dense)}
    rng = np.random.default_rng(0)

    def make(*shape: int):
        array = rng.normal(size=shape).astype(np.float32)
        return jnp.asarray(array[0] if len(array) == 1 else array)

    operands = [(make(n, m, k), make(n, k, p)) for n, m, k, p in times]

    @jax.jit
    def products(operands):
        def again(_, carry):
            # One number of the result goes into the operand, so that no product is that of the last round.
            a, b = carry
            corner = (a @ b)[(slice(0, 1),) * a.ndim] * 1e-9
            return jax.lax.dynamic_update_slice(a, corner, (0,) * a.ndim), b

        return [
            jax.lax.fori_loop(0, count, again, pair)[0][(0,) * pair[0].ndim]
            for pair, count in zip(operands, times.values(), strict=True)
        ]

    return lambda: jax.block_until_ready(products(operands))


def _step_bytes(batch: int, rows: int):
    """Reads as many bytes as the steps do, as often: one vector operation on every eight of them."""
    import jax
    import jax.numpy as jnp

    layer = 6 * WIDTH * WIDTH + 3 * WIDTH * MLP  # self-attention, query and out of cross-attention, the MLP
    caches = 2 * WIDTH * batch * ((IMAGE // PATCH) ** 2 + PROMPT + TOKENS)
    numbers = LAYERS * (layer + caches) + rows * WIDTH
    columns = 2048
    read = jnp.asarray(np.random.default_rng(0).normal(size=(numbers // columns, columns)), jnp.float32)

    @jax.jit
    def steps(read, total):
        return jax.lax.fori_loop(0, TOKENS - 1, lambda _, total: jnp.sum(read * total, axis=0) * 1e-4, total)

    start = jnp.ones(columns)
    return lambda: steps(read, start).block_until_ready()


def _processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
