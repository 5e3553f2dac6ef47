"""What a model costs: FLOPs, bytes per chip, and the table of sizes."""
