"""RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data."""

__version__ = "0.1.0"
