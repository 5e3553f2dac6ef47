"""``rt2 data build``: demonstrations as RLDS and image-text data, rendered in other processes and written here.

The result is a function of the arguments: the same ones give the same bytes, however often the build was interrupted
and whatever the number of workers.
"""

import json
import pathlib
import shlex
from collections.abc import Sequence

from rt2_jax.errors import UserError
from rt2_jax.sim.world.catalog import SKILLS

MAX_SEED = 2**20 - 1
# What the renderer draws; its module is not imported here, for it brings OpenGL.
MAX_IMAGE_SIZE = 512
MAX_WORKERS = 1024


def build(
    data_dir: str | pathlib.Path,
    robot_episodes: int = 2000,
    web_images: int = 20000,
    image_size: int = 96,
    seed: int = 0,
    workers: int = 2,
    skills: Sequence[str] = SKILLS,
    noise: float = 0.15,
    overwrite: bool = False,
    show_progress: bool = True,
) -> dict[str, pathlib.Path]:
    """Writes ``tabletop_robot/1.0.0`` (RLDS, with a card) and ``tabletop_web/1.0.0`` under `data_dir`.

    A folder that is whole and was built with the same arguments is kept; a half-built one is completed, and what was
    lost of one or changed on the disk is made again.

    Args:
        data_dir: the folder of datasets, made where needed.
        robot_episodes: successful demonstrations in the training split, skills in turn; a twentieth of that number
            more for validation. 0 leaves the dataset out.
        web_images: images in the training split, and again a twentieth more. 0 leaves the dataset out.
        image_size: side of the frames in pixels, 16 .. 512.
        seed: 0 .. 2**20 - 1; another one gives other scenes.
        workers: rendering processes, 1 .. 1024.
        skills: what is demonstrated.
        noise: chance per step that a disturbance begins, whose correction is then demonstrated (DART).
        overwrite: replace folders that were built with other arguments.
        show_progress: a progress bar on standard error.

    Returns:
        Dataset name -> its folder.

    Raises:
        UserError: an argument out of its limits, a folder that holds something else or that another process is
            building, no OpenGL, a full disk.
    """
    data_dir = pathlib.Path(data_dir)
    _check(robot_episodes, web_images, image_size, seed, workers, skills, noise)
    # TensorFlow comes in here and not with this module: the simulator's processes import the main script again, and
    # one that imports `build` must not bring TensorFlow to them.
    from rt2_jax.datasets.tabletop.write import robot_source, web_source, write_datasets

    sources = []
    if robot_episodes:
        sources.append(robot_source(data_dir, robot_episodes, image_size, seed, tuple(skills), noise))
    if web_images:
        sources.append(web_source(data_dir, web_images, image_size, seed))
    write_datasets(sources, workers, overwrite, show_progress)
    return {source.spec.name: source.spec.folder for source in sources}


def _check(
    robot_episodes: int,
    web_images: int,
    image_size: int,
    seed: int,
    workers: int,
    skills: Sequence[str],
    noise: float,
) -> None:
    for name, value, low, high in (
        ("robot episodes", robot_episodes, 0, 2**36),
        ("web images", web_images, 0, 2**36),
        ("image size", image_size, 16, MAX_IMAGE_SIZE),
        ("workers", workers, 1, MAX_WORKERS),
        ("seed", seed, 0, MAX_SEED),
        ("noise", noise, 0.0, 1.0),
    ):
        if not low <= value <= high:
            raise UserError(f"{name} is {value}; choose {low} to {high}")
    if not robot_episodes and not web_images:
        raise UserError("robot episodes and web images are both 0; ask for at least one of either")
    unknown = [skill for skill in skills if skill not in SKILLS]
    if unknown or not skills:
        raise UserError(f"skills are {list(skills)}; choose at least one of {', '.join(SKILLS)}")


def build_again(folder: pathlib.Path) -> str:
    """The command that repairs a dataset which `rt2 data build` wrote."""
    from rt2_jax.datasets.tfds_folder import BUILD_NAME

    try:
        parameters = json.loads((folder / BUILD_NAME).read_text(encoding="utf-8"))
        if parameters.get("skills", list(SKILLS)) != list(SKILLS):
            raise ValueError("the command line cannot say that")
        robot, web = parameters.get("episodes", 0), parameters.get("images", 0)
        options = {"data": folder.parent.parent, "robot-episodes": robot, "web-images": web}
        options |= {name.replace("_", "-"): parameters[name] for name in ("image_size", "seed")}
        options |= {"noise": parameters["noise"]} if robot else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "run the same `rt2 data build` again"
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return f"run `{shlex.join(['rt2', 'data', 'build', *words])}`"
