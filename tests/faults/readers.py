"""Command lines that read an artefact: {it} is its folder, {root} where it lies, {place} the workplace."""

READ_BUNDLE = (
    ["sample", "--checkpoint", "{it}", "--image", "{root}/frame.png", "--prompt", "x"],
    ["export", "--checkpoint", "{it}", "--out", "{root}/out"],
    ["verify", "{it}"],
    ["convert", "--model", "{it}", "--out", "{root}/out"],
    ["eval", "--checkpoint", "{it}", "--out", "{root}/out", "--data", "{place}/data", "--episodes", "0"],
    ["train", "--config", "{place}/config.py", "--workdir", "{root}/out", "--config.init_from={it}"],
)
READ_RUN = (*READ_BUNDLE[:3], ["train", "--config", "{place}/config.py", "--workdir", "{it}"])
READ_DATA = (
    ["data", "inspect", "--data", "{it}", "--tasks", "tabletop_robot_action", "--out", "{root}/sheet.png"],
    ["train", "--config", "{place}/config.py", "--workdir", "{root}/out", "--config.data_dir={it}"],
)
READ_HELD_OUT = (
    ["eval", "--checkpoint", "{place}/bundle", "--out", "{root}/out", "--data", "{it}", "--episodes", "0"],
)  # fmt: skip
READ_TRANSFORMERS = (["convert", "--text", "{it}/text", "--vision", "{it}/vision", "--out", "{root}/out"],)
READ_T5X = (["convert", "--text", "{it}", "--vision", "{place}/transformers/vision", "--out", "{root}/out"],)
READ_BIG_VISION = (
    ["convert", "--vision", "{it}/vision.npz", "--text", "{place}/transformers/text", "--out", "{root}/out"],
)


def reader_of(readers, rng, it, root, place):
    """One of them, by chance."""
    return [word.format(it=it, root=root, place=place) for word in readers[rng.integers(len(readers))]]
