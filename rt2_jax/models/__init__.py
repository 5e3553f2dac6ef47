"""ViT, encoder-decoder and their PaLI wiring; the only home of flax.linen."""
