"""The tabletop's two datasets: demonstrations and web images, from the simulator to TFDS folders and tasks."""
