"""What a model is asked, word for word: one place for training and serving (RT-2, section 3.2 and appendix; PaLI-X).

Every field is stripped and its runs of white space become one space, so that a robot's client and the training data
cannot differ by a stray blank. An empty field is a `UserError`.
"""

from rt2_jax.errors import UserError
from rt2_jax.tokens.action_text import ACTION_MARKER

PLAN_MARKER = "Plan:"
ROBOT = "robot"  # RT-2's word for it
EXTRA_ID = "<extra_id_0>"
MAX_CHARACTERS = 100_000  # of one field; tokenising more takes long, and no prompt_len holds it


def robot_prompt(instruction: str, robot: str = ROBOT, state: str = "") -> str:
    """RT-2's robot VQA prompt; the target is the action string.

    Args:
        instruction: what the robot is told.
        robot: the words that name it (`Embodiment.robot`).
        state: its own state as integers, written as an action string is; "" where the prompt has none.
    """
    asked = f"Q: what action should the {_field('robot', robot)} take to {_field('instruction', instruction)}?"
    return f"{asked}{_stated(state)} A:"


def plan_prompt(instruction: str, robot: str = ROBOT, state: str = "") -> str:
    """The chain-of-thought prompt (RT-2, section 4.4); the target is `plan_target`. Arguments as `robot_prompt`."""
    told = "" if robot == ROBOT else f" for the {_field('robot', robot)}"
    return f"Instruction{told}: {_field('instruction', instruction)}{_stated(state)}"


def _stated(state: str) -> str:
    return f" State: {_field('state', state)}" if state else ""


def plan_target(plan: str, action: str) -> str:
    """``"Plan: pick red cube. Action: 1 128 ..."``: a plan in words, then the action string."""
    words = _field("plan", _field("plan", plan).rstrip("."))
    return f"{PLAN_MARKER} {words}. {ACTION_MARKER} {_field('action', action)}"


def caption_prompt(lang: str) -> str:
    """PaLI-X's captioning prompt; `lang` is a language code such as ``"en"``."""
    return f"Generate caption in {_field('language', lang)}"


def vqa_prompt(lang: str, question: str) -> str:
    """PaLI-X's visual question prompt."""
    return f"Answer in {_field('language', lang)}: {_field('question', question)}"


def alt_text_prompt(lang: str, pos: str, caption: str) -> str:
    """PaLI's split-captioning prompt: the text up to position `pos`; the target is the rest."""
    return (
        f"Generate the alt-text in {_field('language', lang)} at {_field('position', str(pos))}: "
        f"{_field('caption', caption)} {EXTRA_ID}"
    )


def detection_prompt(origin: str = "") -> str:
    """Asks for every object and its place, in the frame or as counted from the thing named `origin`."""
    return "Detect all objects" + _seen_from(origin)


def locate_prompt(name: str, origin: str = "") -> str:
    """Asks where one object is, in the frame or as counted from the thing named `origin`."""
    return f"Locate the {_field('name', name)}" + _seen_from(origin)


def _seen_from(origin: str) -> str:
    return f" from the {_field('origin', origin)}" if origin else ""


def check_text(what: str, text: str) -> None:
    """Accepts a text that can be written in UTF-8 and is no longer than any model reads.

    Raises:
        UserError: another type, a lone surrogate (bytes of a command line that are not UTF-8), or too long.
    """
    if not isinstance(text, str):
        raise UserError(f"{what}: a {type(text).__name__}, needs text")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{what} has {len(text):,} characters, at most {MAX_CHARACTERS:,}; shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise UserError(f"{what} {shown} is not UTF-8 at character {error.start}; write it in UTF-8") from error


def _field(what: str, text: str) -> str:
    check_text(what, text)
    words = " ".join(text.split())
    if not words:
        raise UserError(f"{what} is empty; give at least one word")
    return words
