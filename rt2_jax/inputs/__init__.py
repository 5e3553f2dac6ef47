"""What a model is fed: images, prompts and the Batch. numpy and Pillow only."""
