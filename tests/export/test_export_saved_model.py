"""The SavedModel acts as the policy does, token for token, in TensorFlow without jax."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rt2_jax.actions import ActionBins, ActionSpace, Embodiment, arm_space
from rt2_jax.errors import UserError
from rt2_jax.export.saved_model.frames import decoded, resized
from rt2_jax.export.saved_model.prompts import PromptTokens, cleaned
from rt2_jax.export.saved_model.save import SAVED_MODEL_KIND, save_saved_model
from rt2_jax.files.manifest import check_sealed
from rt2_jax.inputs.batch import prompt_tokens
from rt2_jax.inputs.images import decode_image, encode_jpeg, resize_image
from rt2_jax.policy.load import make_policy
from rt2_jax.policy.policy import PROMPTS
from rt2_jax.tokens import Vocabulary
from rt2_jax.tokens.action_text import action_text

COUNT = 8
SPACES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
STRANGE = [
    "pick red cube", "  pick\tred\n cube ", f"pick{SPACES}red", "PICK the Red CUBE!", "ramasse le cube rouge à côté",
    "把红色方块拿起来", "поднять красный куб", "take 128 255 3", "<0> Action: 1 2", "\u2581\u2581x", "ﬁne  café",
    "a\u200bb", "x" * 40, "'\"\\%$#@", "½ ② Ⅳ", "🤖 go", "e\u0301", "A: Q: what?",
]  # fmt: skip


def many_instructions(count):
    rng = np.random.default_rng(0)
    words = [*"pick push reach the a red blue yellow cube ball star to left of near place into".split(), *STRANGE, "  "]
    return STRANGE + [" ".join(rng.choice(words, rng.integers(1, 7))) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def tokens():
    return PromptTokens(Vocabulary.load(), 256)


@pytest.mark.parametrize("mode", ["action", "plan"])
def test_prompts_are_the_same_tokens(tokens, mode):
    vocabulary, robot = Vocabulary.load(), Embodiment("arm", ActionBins(arm_space(0.04, 0.3)), robot="left arm")
    told = [text for text in many_instructions(300) if text.split()]
    found = tokens.tokens(mode, robot, tf.constant(told)).numpy()
    wanted = [prompt_tokens(vocabulary, PROMPTS[mode](text, robot.robot), 256) for text in told]
    np.testing.assert_array_equal(found, np.stack(wanted))
    # And back to text, as the policy has it.
    texts = tokens.text(tf.constant(found))
    assert [text.decode() for text in texts.numpy()] == [vocabulary.decode(row) for row in wanted]


@pytest.mark.parametrize("decoding", ["centre", "rt1"])
def test_states_are_the_same_words(tokens, decoding):
    vocabulary = Vocabulary.load()
    space = ActionSpace(
        ("a", "b", "c"), (-1.0, 0.0, -0.1), (1.0, 3.0, 0.7), ("m",) * 3, ("continuous", "binary", "continuous")
    )
    bins = ActionBins(space, num_bins=200, decoding=decoding, first=7)
    robot = Embodiment("arm", ActionBins(arm_space(0.04, 0.3)), proprioception=bins)
    states = np.random.default_rng(0).uniform(-2, 4, (200, 3)).astype(np.float32)
    found = tokens.tokens("plan", robot, tf.constant(["go"] * 200), tf.constant(states)).numpy()
    texts = [PROMPTS["plan"]("go", robot.robot, action_text(vocabulary, row)) for row in bins.encode(states)]
    np.testing.assert_array_equal(found, [prompt_tokens(vocabulary, text, 256) for text in texts])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["go", " \u3000"], "is empty"),
        (["x " * 300], "more tokens"),
        (["y" * 100_001], "too long"),
        ([b"\xff"], "invalid formatting"),
    ],
)
def test_wrong_instructions_are_refused(tokens, texts, said):
    robot = Embodiment("arm", ActionBins(arm_space(0.04, 0.3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?i){said}"):
        tokens.tokens("action", robot, tf.constant(texts))


def test_white_space_is_that_of_str_split():
    points = [chr(code) for code in range(1, 0x11000) if not 0xD800 <= code < 0xE000]
    found = cleaned(tf.constant([f"a{point}b" for point in points])).numpy()
    assert [text.decode() for text in found] == [" ".join(f"a{point}b".split()) for point in points]


@pytest.mark.parametrize("shape", [(480, 640), (96, 96), (256, 320), (97, 95), (1, 1), (33, 200), (720, 1280)])
def test_frames_are_resized_as_pillow_does(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for size in (96, 224):
        np.testing.assert_array_equal(resized(tf.constant(image), size), resize_image(image, size))


def encoded(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"format": "JPEG", "quality": 95, "subsampling": 0},
        {"format": "JPEG", "quality": 75, "subsampling": 2},
        {"format": "JPEG", "quality": 60, "subsampling": 1, "progressive": True},
        {"format": "PNG"},
    ],
    ids=["444", "420", "422-progressive", "png"],
)
def test_files_are_decoded_as_pillow_does(options, many_frames):
    for image in many_frames(8):
        data = encoded(image[: 80 + image[0, 0, 0] % 16], **options)
        np.testing.assert_array_equal(decoded(tf.constant(data)), decode_image(data))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_images_become_rgb(mode, frames):
    image = Image.fromarray(frames[0]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    np.testing.assert_array_equal(decoded(tf.constant(stream.getvalue())), decode_image(stream.getvalue()))


@pytest.fixture(scope="module")
def saved(shipped, tmp_path_factory):
    out = tmp_path_factory.mktemp("saved") / "model"
    save_saved_model(out, shipped, texts={"model_card.md": "# it\n"})
    return out


# Runs where importing jax, or this package, fails.
ALONE = """
import sys

class NoJax:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "orbax", "rt2_jax"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NoJax())
import numpy as np
import tensorflow as tf
import tensorflow_text

model = tf.saved_model.load({folder!r})
data = np.load({inputs!r}, allow_pickle=True)
told = tf.constant(list(data["told"]))
images = {{
    "serving_default": tf.constant([[bytes(file)] for file in data["files"]]),
    "plan_frames": tf.constant(data["frames"][:, None]),
}}
for name, given in images.items():
    out = model.signatures[name](images=given, instruction=told)
    found = {{key: value.numpy() for key, value in out.items()}}
    found["text"] = [text.decode() for text in found["text"]]
    np.savez({folder!r} + f"/../{{name}}.npz", **found)
assert sorted(model.signatures) == ["action", "action_frames", "plan", "plan_frames", "serving_default"]
"""


def test_it_acts_as_the_policy_without_jax(saved, shipped, acted, many_frames, instructions, tmp_path):
    frames, told = many_frames(COUNT), instructions(COUNT)
    files = [encode_jpeg(np.repeat(np.repeat(frame, 2, 0), 3, 1)[:150], 90) for frame in frames]
    inputs = tmp_path / "inputs.npz"
    held = np.empty(COUNT, object)
    held[:] = files
    np.savez(inputs, frames=frames, told=told, files=held)
    code = ALONE.format(folder=str(saved), inputs=str(inputs))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = np.stack([resize_image(decode_image(file), 96) for file in files])
    outputs = {"serving_default": make_policy(shipped).act(shown, told), "plan_frames": acted("plan")}
    for name, output in outputs.items():
        found = np.load(saved.parent / f"{name}.npz")
        np.testing.assert_array_equal(found["bins"], output.chunk_bins)
        np.testing.assert_array_equal(found["actions"], output.chunk)
        assert found["text"].tolist() == output.text
        np.testing.assert_allclose(found["logprob"], output.logprob, atol=1e-3)


def test_the_folder_is_sealed(saved):
    check_sealed(saved, SAVED_MODEL_KIND)
    assert (saved / "model_card.md").read_text() == "# it\n"
    assert (saved / "saved_model.pb").is_file()


def test_an_unknown_mode_is_refused(shipped, tmp_path):
    with pytest.raises(UserError, match="mode 'fly' is unknown"):
        save_saved_model(tmp_path / "out", shipped, modes=("fly",))
