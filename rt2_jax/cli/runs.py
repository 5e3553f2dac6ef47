"""rt2 train, eval and sample: make a checkpoint, and ask what it can do."""

import argparse
import os
from typing import Any

from rt2_jax.cli.parsing import (
    MAX_JAX_SEED,
    MAX_SEED,
    add_no_verify,
    add_verb,
    count,
    names,
    number,
    path,
    text,
    told_unverified,
)
from rt2_jax.errors import UserError

API_KEY = "RT2_API_KEY"


def add_train(verbs: Any) -> None:
    train = add_verb(
        verbs, "train", _train, "train a model by a config",
        "A config is a Python file with get_config(); any of its values can be set on the command line:\n"
        "  rt2 train --config configs/tabletop_demo.py --workdir runs/a --config.steps=9 --config.seed=1\n"
        "Run again with the same workdir to go on from its last checkpoint, on any number of hosts.\n"
        "Exit code 42 means: stopped by SIGTERM with everything saved, start me again.",
    )  # fmt: skip
    train.add_argument(
        "--config", type=path, required=True, help="the config file; --config.KEY=VALUE sets one of its values"
    )
    train.add_argument("--workdir", type=path, required=True, help="checkpoints, metrics and the config go here")


def _train(arguments: argparse.Namespace) -> int:
    from rt2_jax.train.signals import StopSignals, ignore_signals_at_exit

    with StopSignals() as signals:  # before JAX is imported, which takes seconds
        from rt2_jax.train.config import load_config
        from rt2_jax.train.loop import train

        code = train(load_config(arguments.config, arguments.rest), arguments.workdir, signals)
        ignore_signals_at_exit()
    return code


def add_eval(verbs: Any) -> None:
    evaluate = add_verb(
        verbs, "eval", _eval, "drive a robot, simulated or real, and write the report",
        "Closed loop with controls, beside what the same checkpoint still knows of the web. Writes OUT/report.json\n"
        "and OUT/report.html. Without --env it drives the tabletop's arm on RT-2's splits (seen; unseen objects,\n"
        "backgrounds, environments; symbols, reasoning, persons); docs/your_robot.md says how to drive another:\n"
        "  rt2 eval --checkpoint RUN --out REPORT --env my_robot:make_env\n"
        "With --server it drives through `rt2 serve`, and what needs the weights themselves is left out.",
    )  # fmt: skip
    judged = evaluate.add_mutually_exclusive_group(required=True)
    judged.add_argument("--checkpoint", type=path, help="a run's workdir or a shipped bundle")
    judged.add_argument(
        "--server", type=text, metavar="URL",
        help=f"what `rt2 serve` serves there, e.g. ws://localhost:8000; an API key is taken from ${API_KEY}",
    )  # fmt: skip
    evaluate.add_argument("--out", type=path, required=True, help="the folder for the report")
    evaluate.add_argument(
        "--env", type=text, default=None, metavar="MODULE:FACTORY",
        help="what makes the environments to drive, found on PYTHONPATH (default: the tabletop)",
    )  # fmt: skip
    evaluate.add_argument("--data", type=path, default=None, help="prepared data, for the offline metrics")
    evaluate.add_argument("--reference", type=path, default=None, help="a checkpoint to show forgetting against")
    evaluate.add_argument("--splits", type=names, default=None, help="comma-separated splits (default: all)")
    evaluate.add_argument("--skills", type=names, default=None, help="comma-separated skills (default: all)")
    evaluate.add_argument("--tasks", type=names, default=None, help="comma-separated prepared tasks (default: all)")
    evaluate.add_argument(
        "--episodes", type=count(0, 100_000), default=20,
        help="episodes for each skill of a split, %(type)s (default 20); 0 leaves the closed loop out",
    )  # fmt: skip
    evaluate.add_argument(
        "--examples", type=count(1, 10_000_000), default=256,
        help="held-out examples for each task, %(type)s (default 256)",
    )  # fmt: skip
    evaluate.add_argument("--mode", choices=("action", "plan"), default="action", help="plan: think before each action")
    evaluate.add_argument("--embodiment", type=text, help="who is driven, where the checkpoint knows several robots")
    evaluate.add_argument("--no-controls", action="store_true", help="leave out the controls")
    evaluate.add_argument(
        "--seed", type=count(0, MAX_SEED), default=0, help="another seed, other episodes: %(type)s (default 0)"
    )
    add_no_verify(evaluate)


def _eval(arguments: argparse.Namespace) -> None:
    from rt2_jax.evaluate.results import CONTROLS

    if arguments.server is not None:
        _eval_server(arguments)
        return
    from rt2_jax.report.run import evaluate

    told_unverified(arguments)
    evaluate(
        arguments.checkpoint,
        arguments.out,
        data_dir=arguments.data,
        env=arguments.env,
        reference=arguments.reference,
        splits=arguments.splits,
        skills=arguments.skills,
        tasks=arguments.tasks,
        episodes=arguments.episodes,
        examples=arguments.examples,
        mode=arguments.mode,
        embodiment=arguments.embodiment,
        controls=() if arguments.no_controls else CONTROLS,
        seed=arguments.seed,
        verify=not arguments.no_verify,
    )


def _eval_server(arguments: argparse.Namespace) -> None:
    given = [name for name in ("data", "reference", "tasks", "no_verify") if getattr(arguments, name)]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} needs the weights, which are at the server; leave it out, or name a --checkpoint")
    from rt2_jax.evaluate.results import CONTROLS
    from rt2_jax.report.served import evaluate_server

    evaluate_server(
        arguments.server,
        arguments.out,
        api_key=os.environ.get(API_KEY),
        env=arguments.env,
        splits=arguments.splits,
        skills=arguments.skills,
        episodes=arguments.episodes,
        mode=arguments.mode,
        embodiment=arguments.embodiment,
        controls=() if arguments.no_controls else CONTROLS,
        seed=arguments.seed,
    )


def add_sample(verbs: Any) -> None:
    sample = add_verb(
        verbs, "sample", _sample, "ask a checkpoint about an image",
        "With --instruction it answers with an action (or a plan and an action: --mode plan), decoded under the\n"
        "grammar, in bins and in physical units; with --prompt it answers in text.",
    )  # fmt: skip
    sample.add_argument(
        "--checkpoint", type=path, required=True,
        help="a run's workdir, a shipped bundle, or what rt2 convert wrote (which answers in text alone)",
    )  # fmt: skip
    sample.add_argument(
        "--image", type=path, nargs="+", required=True,
        help="an image file, resized to the model's frames; as many as the model takes, the oldest moment first and of "
        "each moment the cameras in the card's order",
    )  # fmt: skip
    asked = sample.add_mutually_exclusive_group(required=True)
    asked.add_argument("--instruction", type=text, help='what the robot is told, e.g. "pick up the red cube"')
    asked.add_argument("--prompt", type=text, help='any text, e.g. "Answer in en: what number is on the table?"')
    sample.add_argument("--mode", choices=("action", "plan"), default=None, help="plan: think before the action")
    sample.add_argument("--embodiment", type=text, help="who acts, where the checkpoint knows several robots")
    sample.add_argument(
        "--state", type=number(-1e6, 1e6), nargs="+", help="the robot's own state, where its card has proprioception"
    )
    sample.add_argument("--temperature", type=number(0.0, 100.0), default=0.0, help="%(type)s; 0 is greedy (default)")
    sample.add_argument(
        "--seed", type=count(0, MAX_JAX_SEED), default=0, help="for a temperature above 0: %(type)s (default 0)"
    )
    sample.add_argument("-v", "--verbose", action="store_true", help="say who answers: step, embodiments, identity")
    add_no_verify(sample)


def _sample(arguments: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from rt2_jax.bundle.spec import read_spec
    from rt2_jax.bundle.store import load_bundle
    from rt2_jax.inputs.images import decode_image, resize_image
    from rt2_jax.policy.load import ANSWER_LEN, make_policy, make_text_model

    if arguments.prompt is not None and arguments.mode is not None:
        raise UserError("--mode is how to act; give it with --instruction, not with --prompt")
    if arguments.prompt is not None and (arguments.embodiment or arguments.state):
        raise UserError("--embodiment and --state are of a robot; give them with --instruction, not with --prompt")
    for file in arguments.image:
        if not file.is_file():
            raise UserError(f"image {file} does not exist; name a PNG, JPEG, WebP or BMP file")
    frames, rng = [decode_image(file.read_bytes()) for file in arguments.image], jax.random.key(arguments.seed)
    model = read_spec(arguments.checkpoint).model
    if len(frames) != model.num_images:
        raise UserError(
            f"--image names {len(frames)} images, the model of {arguments.checkpoint} takes {model.num_images}; name "
            "as many, the oldest first"
        )
    images = np.stack([resize_image(frame, model.image_size) for frame in frames])[None]
    told_unverified(arguments)
    bundle = load_bundle(arguments.checkpoint, verify=not arguments.no_verify)
    if arguments.verbose:
        robots = ", ".join(bundle.embodiments) or "none"
        print(
            f"{bundle.path}: {bundle.spec.model.name}, step {bundle.spec.step}, embodiments {robots}, "
            f"identity {bundle.identity}"
        )
    if arguments.prompt is not None:
        words = len(bundle.vocabulary.encode(arguments.prompt))
        model = make_text_model(bundle, bundle.spec.prompt_len or max(1, words), temperature=arguments.temperature)
        print(model.answer(images, [arguments.prompt], bundle.spec.target_len or ANSWER_LEN, rng)[0])
        return
    policy = make_policy(bundle, temperature=arguments.temperature)
    embodiment = policy.embodiment(arguments.embodiment)
    output = policy.act(
        images, [arguments.instruction], arguments.mode or "action", rng, embodiment=embodiment.name,
        states=None if arguments.state is None else np.array([arguments.state], np.float32),
    )  # fmt: skip
    print(output.text[0])
    space = embodiment.space
    for ahead, action in enumerate(output.chunk[0]):
        if embodiment.chunk > 1:
            print(f"step {ahead}")
        for name, value, unit in zip(space.names, action, space.units, strict=True):
            print(f"  {name:<10} {value:+.4f} {unit}")
