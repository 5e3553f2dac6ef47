"""``rt2 sizes``: parameters, operations and memory of every size, for a terminal or for docs/models.md."""

import dataclasses
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rt2_jax.errors import UserError
from rt2_jax.fit.flops import (
    ACTION_TOKENS,
    Flops,
    action_flops,
    decode_step_flops,
    prefill_flops,
    prefix_len,
    recomputed_flops,
    train_flops,
)
from rt2_jax.fit.footprint import footprint
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.sizes import SIZES, get_config, group_count

COUNT_UNITS = ("", "K", "M", "B")
FLOP_UNITS = ("", "K", "M", "G", "T", "P")
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
GROUPS = ("vision", "image_projection", "token_embedding", "encoder", "decoder", "logits")


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table of words; the first column says what a row is about, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def for_terminal(self) -> Table:
        """For `rich.console.Console.print`."""
        table = Table(title=self.title, title_justify="left", box=None, padding=(0, 2, 0, 0), title_style="bold")
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """A heading line in bold and a Markdown table."""
        rules = ["---"] + ["---:"] * (len(self.columns) - 1)
        rows = (self.columns, rules, *self.rows)
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(row) + " |" for row in rows)])


def scaled(value: int, units: Sequence[str], base: int = 1000) -> str:
    """Three significant digits and the unit that keeps them short; "-" for nothing."""
    if value == 0:
        return "-"
    short, power = float(value), 0
    while short >= base and power < len(units) - 1:
        short, power = short / base, power + 1
    decimals = max(0, 2 - int(math.log10(float(f"{short:.3g}"))))
    return f"{short:.{decimals}f} {units[power]}".strip()


def overview(prompt_len: int, target_len: int) -> list[Sheet]:
    """Every size: its parameters by part; its operations and its memory at these lengths in tokens."""
    _check_lengths(prompt_len, target_len)
    parameters = ("size", "vision", "projection", "vocabulary", "encoder", "decoder", "total")
    operations = ("size", "tokens", "example", "recomputed", "prefill", "step", "action")
    memory = ("size", "float32", "bfloat16", "train state", "cache", "serving")
    configs = SIZES.values()
    return [
        Sheet("Parameters", parameters, tuple(_parameters_row(config) for config in configs)),
        Sheet(
            _operations_title(prompt_len, target_len),
            operations,
            tuple(_operations_row(config, prompt_len, target_len) for config in configs),
        ),
        Sheet("Memory at rest", memory, tuple(_memory_row(config, prompt_len) for config in configs)),
    ]


def breakdown(config: ModelConfig, prompt_len: int, target_len: int) -> list[Sheet]:
    """One size, by groups of its parameter tree."""
    _check_lengths(prompt_len, target_len)
    counts = group_count(config)
    programs = _programs(config, prompt_len, target_len)
    rows = [
        (group, _count(counts.get(group, 0)), *(_flops(getattr(flops, group, 0)) for flops in programs))
        for group in GROUPS
    ]
    rows.append(("total", _count(sum(counts.values())), *(_flops(flops.total) for flops in programs)))
    rows.append(("recomputed", "-", _flops(recomputed_flops(config, prompt_len, target_len)), "-", "-", "-"))
    memory = footprint(config, prompt_len)
    return [
        Sheet(
            f"{config.name}. {_operations_title(prompt_len, target_len)}",
            ("group", "parameters", "example", "prefill", "step", "action"),
            tuple(rows),
        ),
        Sheet(
            f"{config.name}. Memory at rest",
            ("what", "bytes"),
            (
                ("float32 parameters", _bytes(memory.float32)),
                ("bfloat16 parameters", _bytes(memory.bfloat16)),
                ("train state with Adafactor", _bytes(memory.train_state)),
                ("cache of one robot", _bytes(memory.cache)),
                ("serving: bfloat16 parameters and one cache", _bytes(memory.serving)),
            ),
        ),
    ]


def print_sizes(size: str | None, prompt_len: int, target_len: int, markdown: bool) -> None:
    """Prints every size, or one by its groups, as tables or as Markdown."""
    sheets = overview(prompt_len, target_len) if size is None else breakdown(get_config(size), prompt_len, target_len)
    if markdown:
        print("\n\n".join(sheet.markdown() for sheet in sheets))
        return
    console = Console()
    for sheet in sheets:
        console.print(sheet.for_terminal(), "")


def _parameters_row(config: ModelConfig) -> tuple[str, ...]:
    counts = group_count(config)
    vision, projection, tokens, encoder, decoder, logits = (counts.get(group, 0) for group in GROUPS)
    parts = (vision, projection, tokens + logits, encoder, decoder, sum(counts.values()))
    return (config.name, *map(_count, parts))


def _operations_row(config: ModelConfig, prompt_len: int, target_len: int) -> tuple[str, ...]:
    example, *inference = (flops.total for flops in _programs(config, prompt_len, target_len))
    operations = (example, recomputed_flops(config, prompt_len, target_len), *inference)
    return (config.name, str(prefix_len(config, prompt_len)), *map(_flops, operations))


def _memory_row(config: ModelConfig, prompt_len: int) -> tuple[str, ...]:
    memory = footprint(config, prompt_len)
    sizes = (memory.float32, memory.bfloat16, memory.train_state, memory.cache, memory.serving)
    return (config.name, *map(_bytes, sizes))


def _programs(config: ModelConfig, prompt_len: int, target_len: int) -> tuple[Flops, Flops, Flops, Flops]:
    """A training example, a prefill, one step after it, and an action made of them."""
    max_len = ACTION_TOKENS + 1
    return (
        train_flops(config, prompt_len, target_len),
        prefill_flops(config, prompt_len, max_len),
        decode_step_flops(config, prompt_len, max_len),
        action_flops(config, prompt_len),
    )


def _operations_title(prompt_len: int, target_len: int) -> str:
    return f"FLOPs, with prompts of {prompt_len} tokens and targets of {target_len}"


def _check_lengths(prompt_len: int, target_len: int) -> None:
    for name, length in (("prompt-len", prompt_len), ("target-len", target_len)):
        if length < 1:
            raise UserError(f"{name} is {length}; choose 1 or more tokens")


def _count(value: int) -> str:
    return scaled(value, COUNT_UNITS)


def _flops(value: int) -> str:
    return scaled(value, FLOP_UNITS)


def _bytes(value: int) -> str:
    return scaled(value, BYTE_UNITS, base=1024)
