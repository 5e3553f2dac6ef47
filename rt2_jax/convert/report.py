"""What a conversion did, as a table in the terminal."""

import pathlib

import rich.box
from rich.console import Console
from rich.table import Table

from rt2_jax.convert.importer import Imported
from rt2_jax.models.sizes import param_count


def report(imported: Imported, out: pathlib.Path, console: Console | None = None) -> None:
    """Prints the model's parts, where their parameters came from, and what is new."""
    console = console or Console()
    config, counts = imported.config, param_count(imported.config)
    table = Table(title=f"{out}: {config.name}", box=rich.box.SIMPLE_HEAD, title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    for part, number in counts.items():
        table.add_row(part, f"{number:,}", end_section=part == "text")
    console.print(table)
    for source, paths in imported.taken.items():
        console.print(f"from {source}: {len(paths)} parameters")
    if imported.resampled:
        old, new = imported.resampled
        console.print(f"position embedding resampled from {old} to {new} patches")
    for line in imported.new:
        console.print(f"new: {line}")
