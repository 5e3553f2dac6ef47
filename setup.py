"""Package metadata: what the core needs, and what each extra adds."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent

# The core trains and decodes from prepared records; it never imports TensorFlow.
CORE = [
    "absl-py>=2.1",
    "flax>=0.12,<0.13",
    "grain>=0.2.18,<0.3",
    "jax>=0.10,<0.11",
    "jaxtyping>=0.3.11,<0.4",
    "jinja2>=3.1",
    "ml_collections>=1.1",
    "msgpack>=1.0",
    "msgspec>=0.19",
    "numpy>=2.0",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "pillow>=10.4",
    "protobuf>=5",
    "rich>=13",
    "scipy>=1.13",
    "sentencepiece>=0.2.1,<0.3",
]
# Defines and prepares datasets (the only part that needs TensorFlow); building the tabletop's takes [sim] as well.
DATA = [
    "seqio>=0.0.20",
    "tensorflow>=2.20,<2.22",
    "tensorflow-datasets>=4.9.9",
    "tensorflow-text>=2.20,<2.22",
]
# Reads and writes the weights of other frameworks (rt2 convert).
CONVERT = ["einops>=0.8", "safetensors>=0.5", "tensorstore>=0.1.70"]
# rt2 export --format jax; an artifact's reader needs flatbuffers too, which jax.export reads programs with.
EXPORT = ["flatbuffers>=24", "safetensors>=0.5"]
# rt2 export --format savedmodel; serving one takes tensorflow and tensorflow-text alone.
SAVEDMODEL = ["orbax-export>=0.0.8,<0.1", "tensorflow>=2.20,<2.22", "tensorflow-text>=2.20,<2.22"]
# Holds the models against code nobody here wrote. On the CPU, in float32.
PARITY = ["torch==2.13.0", "transformers>=5.20,<6"]
# `tensorboard = True` in a config: tensorboardX writes the summaries, without TensorFlow; tensorboard shows them.
TENSORBOARD = ["tensorboard>=2.20", "tensorboardX>=2.6.2"]
# Later MuJoCo releases give other trajectories for the same seed, so the world's version is exact.
SIM = ["mujoco==3.11.0", "gymnasium>=1.2"]
# A policy behind a port (rt2 serve), and its client. aiohttp 3.14 refuses a frame that is too large by its header.
SERVE = ["aiohttp>=3.14,<4", "prometheus_client>=0.20", "websockets>=15"]
# The site of the documentation (make docs).
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
DEV = [
    "basedpyright>=1.30",
    "beartype>=0.23",
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "jsonschema>=4",
    "pre-commit>=4",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.9",
]

setup(
    name="rt2_jax",
    version="0.1.0",
    description="RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["rt2_jax", "rt2_jax.*"]),
    package_data={"rt2_jax": [f"**/*.{kind}" for kind in ("css", "html", "js", "json", "model", "typed")]},
    install_requires=CORE,
    extras_require={
        "convert": CONVERT,
        "data": DATA,
        "export": EXPORT,
        "savedmodel": SAVEDMODEL,
        "parity": PARITY + CONVERT,
        "serve": SERVE,
        "sim": SIM,
        "tensorboard": TENSORBOARD,
        "tpu": ["jax[tpu]>=0.10,<0.11"],
        "cuda": ["jax[cuda12]>=0.10,<0.11"],
        "docs": DOCS,
        "dev": DEV + CONVERT + DATA + DOCS + EXPORT + PARITY + SAVEDMODEL + SERVE + SIM + TENSORBOARD,
    },
    entry_points={"console_scripts": ["rt2=rt2_jax.cli:entry"]},
)
