"""What the parity tests share: a `transformers` model with weights worth comparing, and ours read from its folder."""

import jax
import numpy as np
import pytest
import torch
import transformers

from rt2_jax.bundle.store import load_model, open_folder
from rt2_jax.convert.importer import import_weights

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
FLOAT32 = {"compute_dtype": "float32", "remat": "none"}


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights under which every part of the model matters: scales and biases too, and logits of order one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return model.eval()


def load(folder, tmp_path, role="model", settings=None, **arguments):
    """(backbone, params) of a `transformers` folder, the way `rt2 convert` reads it."""
    imported = import_weights(
        tmp_path / "ours", **{role: folder}, settings={**FLOAT32, **(settings or {})}, **arguments
    )
    backbone, params = load_model(open_folder(tmp_path / "ours"))
    assert backbone.config == imported.config
    return backbone, params


def greedy(backbone, params, images, prompt, steps):
    """int32[B, steps]: the likeliest token each time, whatever it is."""
    logits, cache = jax.jit(backbone.prefill, static_argnums=3)(params, images, prompt, steps)
    step, tokens = jax.jit(backbone.decode_step), []
    for index in range(steps):
        token = np.asarray(logits).argmax(-1).astype(np.int32)
        tokens.append(token)
        logits, cache = step(params, cache, token, np.int32(index))
    return np.stack(tokens, 1)


def close(found, wanted, limit=1e-4):
    """Asserts that the largest gap is within `limit` of the largest value, and likewise the norms of both."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= limit * np.abs(wanted).max()
    assert np.linalg.norm(found - wanted) <= limit * np.linalg.norm(wanted)


def gradients_as_checkpoint(model, folder):
    """Saves the model with each parameter replaced by its gradient, so that the importer lays gradients out as ours."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    model.save_pretrained(folder)


@pytest.fixture
def save(tmp_path):
    """Saves a model and gives its folder."""

    def one(model, name="theirs"):
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return one
