"""How the five skills are said: instructions in English, and the short plans of a chain of thought."""

from collections.abc import Callable

from rt2_jax.sim.world.scene import Decal, Scene, SceneObject, Task, direction_of, index_of

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "reach": ("reach the {t}", "move to the {t}", "go to the {t}", "touch the {t}"),
    "pick": ("pick up the {t}", "pick the {t}", "grasp the {t}", "lift the {t}"),
    "move_near": ("move the {t} near {r}", "bring the {t} near {r}", "put the {t} next to {r}"),
    "push": ("push the {t} {r}", "slide the {t} {r}", "shove the {t} {r}"),
    "place": ("put the {t} on {r}", "place the {t} on {r}", "move the {t} onto {r}"),
}
_DIRECTION_PHRASES = {"left": "to the left", "right": "to the right", "away": "away", "closer": "closer"}


def decal_phrase(decal: Decal) -> str:
    """How an instruction names a decal: ``"the heart sign"``, and ``"Ada"`` without an article."""
    return decal.name if decal.kind == "portrait" else f"the {decal.name}"


def _reference_words(scene: Scene, skill: str, reference: int | str | None) -> str:
    """How an instruction names a task's reference."""
    match skill:
        case "move_near":
            return f"the {scene.objects[index_of(reference)].name}"
        case "push":
            return _DIRECTION_PHRASES[direction_of(reference)]
        case "place":
            return decal_phrase(scene.decals[index_of(reference)])
    return ""


def instructions(scene: Scene, skill: str, target: int, reference: int | str | None) -> tuple[str, ...]:
    """All phrasings of a task, the plainest first."""
    words = _reference_words(scene, skill, reference)
    return tuple(text.format(t=scene.objects[target].name, r=words) for text in _TEMPLATES[skill])


def plan(
    scene: Scene,
    skill: str,
    target: int,
    reference: int | str | None,
    say: Callable[[SceneObject | Decal], str] = lambda thing: thing.name,
) -> str:
    """The short plan of a chain-of-thought target, e.g. ``"move red cube near blue ball"``; `say` words each thing."""
    words = say(scene.objects[target])
    match skill:
        case "move_near":
            return f"move {words} near {say(scene.objects[index_of(reference)])}"
        case "push":
            return f"push {words} {reference}"
        case "place":
            return f"place {words} on {say(scene.decals[index_of(reference)])}"
    return f"{skill} {words}"


def make_task(scene: Scene, skill: str, target: int, reference: int | str | None = None, phrasing: int = 0) -> Task:
    """A task of the scene with its words; `phrasing` counts modulo the skill's templates."""
    options = instructions(scene, skill, target, reference)
    return Task(skill, target, reference, options[phrasing % len(options)], plan(scene, skill, target, reference))
