"""What int8 and bfloat16 weights change in what a policy says and does, on frames of scenes that were never trained on.

    python benchmarks/int8_agreement.py --bundle data/checkpoints/tabletop_rt2 --frames 400

Each variant of the bundle answers the frames and instructions that the float32 one does; a line says the bytes of its
weights, how many tokens, whole answers and whole actions are the same, and how far the actions are from each other in
their units. ``--parts`` compares which parameters are int8, too: all, all but the token table and the head, and so on.
"""

import argparse
import dataclasses
import pathlib

import jax
import numpy as np
from held_frames import held_frames

from rt2_jax.bundle.store import LoadedBundle, cast_bundle, load_bundle, quantize_bundle
from rt2_jax.models.backbone import make_backbone
from rt2_jax.policy.load import make_policy

PARTS = {
    "int8 kernels, float table and head": ("token_embedding", "logits"),
    "int8 kernels and table, float head": ("logits",),
    "int8 kernels and head, float table": ("token_embedding",),
}


def with_float(bundle: LoadedBundle, groups: tuple[str, ...]) -> LoadedBundle:
    """The int8 bundle with the float parameters of some groups: the layers take either."""
    int8 = quantize_bundle(bundle)
    return dataclasses.replace(int8, params={**int8.params, **{group: bundle.params[group] for group in groups}})


def said(bundle: LoadedBundle, frames: np.ndarray, told: list[str], mode: str, batch: int) -> dict[str, np.ndarray]:
    policy = make_policy(bundle)
    parts = [
        policy.act(frames[start : start + batch], told[start : start + batch], mode)
        for start in range(0, len(frames), batch)
    ]
    return {
        "bins": np.concatenate([part.bins for part in parts]),
        "actions": np.concatenate([part.actions for part in parts]),
        "texts": np.array([text for part in parts for text in part.text]),
    }


def main() -> None:
    """Prints a table for each mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, default=pathlib.Path("data/checkpoints/tabletop_rt2"))
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    frames, told = held_frames(options.frames, bundle.spec.model.image_size)
    half = cast_bundle(bundle, "bfloat16")
    model = bundle.spec.model.replace(compute_dtype="bfloat16")
    computed = dataclasses.replace(
        bundle, backbone=make_backbone(model), spec=dataclasses.replace(bundle.spec, model=model)
    )
    variants = {
        "bfloat16 weights": half, "bfloat16 weights, computed in it": dataclasses.replace(computed, params=half.params),
        "int8 weights": quantize_bundle(bundle),
    }  # fmt: skip
    if options.parts:
        variants |= {
            name: with_float(bundle, groups) for name, groups in PARTS.items() if {*groups} <= bundle.params.keys()
        }
    floats = sum(leaf.nbytes for leaf in jax.tree.leaves(bundle.params))
    robot = next(iter(bundle.embodiments.values()))
    print(f"{options.bundle.name}, {len(frames)} frames, float32: {floats / 1e6:.2f} MB")
    for mode in ("action", "plan"):
        wanted = said(bundle, frames, told, mode, options.batch)
        print(f"\nmode {mode}: variant | MB | same bins | same actions | same answers | bins off | error by dimension")
        for name, variant in variants.items():
            found = said(variant, frames, told, mode, options.batch)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(variant.params))
            same = found["bins"] == wanted["bins"]
            error = np.abs(found["actions"] - wanted["actions"]).mean(0)
            told_error = ", ".join(
                f"{dim} {value:.2g} {unit}"
                for dim, value, unit in zip(robot.space.names, error, robot.space.units, strict=True)
            )
            away = np.abs(found["bins"] - wanted["bins"])[:, 1:7].mean()
            print(
                f"{name} | {size / 1e6:.2f} | {same.mean():.1%} | {same.all(1).mean():.1%} | "
                f"{(found['texts'] == wanted['texts']).mean():.1%} | {away:.2f} | {told_error}"
            )


if __name__ == "__main__":
    main()
