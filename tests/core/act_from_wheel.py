"""Run by `make test-core`: the installed wheel samples an action from a shipped bundle, away from the checkout.

cd ELSEWHERE && .venv-core/bin/python -I CHECKOUT/tests/core/act_from_wheel.py CHECKOUT
"""

import pathlib
import sys


def main(checkout: pathlib.Path) -> None:
    assert sys.flags.isolated and checkout not in (pathlib.Path.cwd(), *map(pathlib.Path, sys.path))
    import rt2_jax

    package = pathlib.Path(rt2_jax.__file__).parent
    assert package.parent.name == "site-packages", f"rt2_jax comes from {package}, not from a wheel"

    import numpy as np

    from rt2_jax.actions import load_card
    from rt2_jax.tokens import Vocabulary

    policy = rt2_jax.load_policy(checkout / "data" / "checkpoints" / "tabletop_rt2")
    output = policy.act(np.full((1, 96, 96, 3), 128, np.uint8), ["pick up the red cube"], mode="plan")
    low, high = (np.asarray(bounds) for bounds in (load_card("tabletop").space.low, load_card("tabletop").space.high))
    assert output.actions.shape == (1, 8) and ((low <= output.actions) & (output.actions <= high)).all()
    assert output.text[0].startswith("Plan: pick red cube at "), output.text
    assert Vocabulary.load().sha256 == policy.vocabulary.sha256

    # What is read beside the code is in the wheel as well: the page of a report, and the marker of its annotations.
    missing = {
        path.relative_to(checkout / "rt2_jax").as_posix()
        for path in (checkout / "rt2_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        and not (package / path.relative_to(checkout / "rt2_jax")).is_file()
    }  # fmt: skip
    assert not missing, f"the wheel lacks {sorted(missing)}"
    print(f"wheel: {output.text[0]!r} from {package}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
