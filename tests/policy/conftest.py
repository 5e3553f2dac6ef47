import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from rt2_jax.actions import ActionBins, Embodiment, arm_space
from rt2_jax.tokens import Vocabulary, build_grammar


class FakeBackbone:
    """A backbone without weights: its "parameters" say what its logits are.

    ``params["script"]`` int32[rows, steps]: the token that each row wants at each step, with logit
    ``params["peak"]``.
    ``params["seed"]``, ``params["scale"]``: noise added to it. ``params["poison"]``: 0 nothing, 1 NaN in about half the
    logits, 2 NaN in all of them, 3 infinities of both signs.
    """

    def __init__(self, vocab_size, num_images=1, image_size=8):
        self.config = SimpleNamespace(vocab_size=vocab_size, num_images=num_images, image_size=image_size)

    def params(self, script, seed=0, scale=0.0, poison=0, peak=10.0):
        return {
            "peak": jnp.float32(peak),
            "script": jnp.asarray(script, jnp.int32),
            "seed": jnp.int32(seed),
            "scale": jnp.float32(scale),
            "poison": jnp.int32(poison),
        }

    def prefill(self, params, images, prompt, max_len, *, ids=None):
        assert images.shape[1:] == (self.config.num_images, *[self.config.image_size] * 2, 3)
        # What a real cache must hold to answer: the tokens so far; and how often the model was called.
        cache = {"tokens": jnp.zeros((len(prompt), max_len - 1), jnp.int32), "calls": jnp.int32(1)}
        return self._logits(params, len(prompt), 0, ids), cache

    def decode_step(self, params, cache, token, index, *, ids=None):
        tokens = cache["tokens"].at[:, index].set(token)
        logits = self._logits(params, len(token), index + 1, ids)
        return logits, {"tokens": tokens, "calls": cache["calls"] + 1}

    def _logits(self, params, batch, index, ids):
        script = jnp.resize(params["script"], (batch, params["script"].shape[1]))
        wanted = script[:, jnp.minimum(index, script.shape[1] - 1)]
        logits = params["peak"] * jax.nn.one_hot(wanted, self.config.vocab_size)
        key = jax.random.fold_in(jax.random.key(params["seed"]), index)
        noise, coin = jax.random.normal(key, (2, 1, self.config.vocab_size))
        logits = logits + params["scale"] * noise
        poisons = [
            jnp.broadcast_to(poison, logits.shape)
            for poison in (0.0, jnp.where(coin > 0, jnp.nan, 0.0), jnp.nan, jnp.where(coin > 0, jnp.inf, -jnp.inf))
        ]
        logits = logits + jnp.stack(poisons)[params["poison"]]
        return logits if ids is None else logits[:, ids]


@dataclasses.dataclass(frozen=True)
class Parts:
    vocabulary: Vocabulary
    bins: ActionBins
    grammar: object
    embodiments: dict
    make_fake: type = FakeBackbone


@pytest.fixture(scope="session")
def parts():
    vocabulary = Vocabulary.load()
    bins = ActionBins(arm_space(0.04, 0.3))
    return Parts(vocabulary, bins, build_grammar(vocabulary, bins.allowed), {"arm": Embodiment("arm", bins)})
