"""``rt2 data inspect``: what is prepared, what a mixture makes of it, and a sheet of examples. No TensorFlow."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rt2_jax.data.frames import read_frames_index
from rt2_jax.data.mixtures import read_mixture, recorded_mixtures
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import SPLITS, PreparedIndex, again, prepared_dir, prepared_tasks, read_index
from rt2_jax.data.schedule import make_schedule
from rt2_jax.errors import UserError
from rt2_jax.files.places import check_file
from rt2_jax.files.writing import whole_file
from rt2_jax.tokens.vocabulary import Vocabulary

SHEET_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_FRAME = 160
_LINE = 13
_TEXT_LINES = 8
_GAP = 8


def inspect(
    data_dir: str | pathlib.Path,
    tasks: Sequence[str] | None = None,
    out: str | pathlib.Path | None = None,
    split: str = "train",
    per_task: int = 6,
    vocabulary: Vocabulary | None = None,
) -> str:
    """Counts the prepared tasks and draws examples of each, evenly spaced over the split, with prompt and target.

    Args:
        data_dir: holds ``prepared``.
        tasks: None takes all that are prepared.
        out: the PNG or JPEG to write; None is ``<data_dir>/inspect.png``.
        split: of the examples drawn.
        per_task: examples drawn of each task: one row of the sheet.
        vocabulary: that the tasks were prepared with; None is the shipped one.

    Returns:
        Text: a table of tasks, one of the frames that they point at, both with their bytes, the shares of every mixture
        that they make up, and where the sheet is.

    Raises:
        UserError: nothing is prepared, a task is not, it was prepared with another vocabulary, or `out` cannot be
            written.
    """
    data_dir = pathlib.Path(data_dir)
    vocabulary = vocabulary or Vocabulary.load()
    names = list(tasks) if tasks else list(prepared_tasks(data_dir))
    if not names:
        raise UserError(f"{data_dir} holds no prepared task; run `rt2 data prepare` first")
    if per_task < 1:
        raise UserError(f"examples per task is {per_task}; choose at least 1")
    unknown = [name for name in names if name not in prepared_tasks(data_dir)]
    if unknown:
        raise UserError(
            f"task {unknown[0]!r} is not prepared in {data_dir}; choose from {', '.join(prepared_tasks(data_dir))}"
        )
    out = pathlib.Path(out) if out else data_dir / "inspect.png"
    if out.suffix.lower() not in SHEET_FORMATS:
        raise UserError(f"{out} ends in {out.suffix!r}; name a file that ends in {' or '.join(SHEET_FORMATS)}")
    check_file(out)
    rows = {name: examples(data_dir, name, split, per_task, vocabulary) for name in names}
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        contact_sheet(rows).save(partial, SHEET_FORMATS[out.suffix.lower()])
    parts = [counts_table(data_dir, names), frames_table(data_dir, names), *shares_tables(data_dir, names)]
    return "\n\n".join([*parts, f"examples of {split}: {out}"])


def counts_table(data_dir: pathlib.Path, names: Sequence[str]) -> str:
    """One line for each task and split: examples, longest prompt and target, frames of each, bytes without frames."""
    lines = [("task", "kind", "split", "examples", "left out", "prompt <=", "target <=", "frames", "MB", "bytes each")]
    lines += [_line(index) for index in _indices(data_dir, names)]
    return _aligned(lines)


def frames_table(data_dir: pathlib.Path, names: Sequence[str]) -> str:
    """One line for each folder of frames that the tasks point at, and what all frames and examples come to."""
    indices = _indices(data_dir, names)
    pointing: dict[str, set[str]] = {}
    for index in indices:
        for ref in index.frames:
            pointing.setdefault(ref.folder, set()).add(index.task)
    lines, total = [("frames", "tasks", "frames", "size", "MB", "bytes each")], sum(one.num_bytes for one in indices)
    for folder, tasks in pointing.items():
        fix = again(data_dir, min(tasks))
        index, _ = read_frames_index(data_dir / "prepared" / folder, fix)
        counts = f"{index.num_frames:,}", f"{index.image_size} px", *_bytes(index.num_bytes, index.num_frames)
        lines.append((folder.partition("/")[2], str(len(tasks)), *counts))
        total += index.num_bytes
    return f"{_aligned(lines)}\n\nframes and examples together: {total / 1e6:,.1f} MB"


def shares_tables(data_dir: pathlib.Path, names: Sequence[str], batch_size: int = 64) -> list[str]:
    """The recorded mixtures that these tasks make up: weights, exact shares, and examples in a batch."""
    tables = []
    for mixture in recorded_mixtures(data_dir):
        weights = read_mixture(data_dir, mixture)
        if not set(weights) <= set(names):
            continue
        schedule = make_schedule(weights, batch_size)
        counts = np.stack([schedule.counts(batch) for batch in range(schedule.period)])
        lines = [(mixture, "share", f"of a batch of {batch_size}")]
        for index, (task, numerator) in enumerate(zip(schedule.tasks, schedule.numerators, strict=True)):
            low, high = counts[:, index].min(), counts[:, index].max()
            often = str(low) if low == high else f"{low} or {high}"
            lines.append((f"  {task}", f"{100 * numerator / schedule.denominator:.1f}%", often))
        tables.append(_aligned(lines))
    return tables


def examples(
    data_dir: pathlib.Path, task: str, split: str, count: int, vocabulary: Vocabulary
) -> list[tuple[np.ndarray, str, str]]:
    """(frame uint8[H, W, 3], prompt, target) of `count` examples, evenly spaced over the split.

    Raises:
        UserError: not prepared, or with another vocabulary.
    """
    opened = PreparedSplit(data_dir, task, split)
    if opened.index.vocabulary != vocabulary.sha256:
        raise UserError(f"{task}/{split} was prepared with another vocabulary than {vocabulary.path}; name that one")
    keys = sorted({int(key) for key in np.linspace(0, len(opened) - 1, count)})
    return [
        (frames[-1], vocabulary.decode(record.prompt), vocabulary.decode(record.target))
        for record, frames in opened.read(keys)
    ]


def contact_sheet(rows: Mapping[str, Sequence[tuple[np.ndarray, str, str]]]) -> Image.Image:
    """A picture with one row a task: its name, then frames with their prompt (grey) and target (black) below."""
    columns = max(len(row) for row in rows.values())
    cell = _FRAME + _GAP
    height = _FRAME + (_TEXT_LINES + 2) * _LINE + 2 * _GAP
    sheet = Image.new("RGB", (columns * cell + _GAP, len(rows) * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    # The built-in font of fixed width has every Latin-1 letter and clear spaces between numbers.
    font = ImageFont.load_default_imagefont()
    for number, (task, row) in enumerate(rows.items()):
        top = _GAP + number * height
        draw.text((_GAP, top), task, fill="#0b5fa5", font=font)
        for column, (frame, prompt, target) in enumerate(row):
            left = _GAP + column * cell
            picture = Image.fromarray(frame).resize((_FRAME, _FRAME), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + _LINE + 4))
            line = top + _LINE + 4 + _FRAME + 2
            for text, colour in ((prompt, "#777777"), (target, "black")):
                wrapped = textwrap.wrap(text, 26)[: _TEXT_LINES - 3]
                shown = "\n".join(wrapped).encode("latin-1", "replace").decode("latin-1")
                draw.multiline_text((left, line), shown, fill=colour, font=font, spacing=2)
                line += _LINE * len(wrapped) + 2
    return sheet


def _line(index: PreparedIndex) -> tuple[str, ...]:
    return (
        index.task,
        index.kind,
        index.split,
        f"{index.num_examples:,}",
        f"{index.dropped:,}",
        str(index.longest_prompt),
        str(index.longest_target),
        str(index.num_images),
        *_bytes(index.num_bytes, index.num_examples),
    )


def _bytes(total: int, count: int) -> tuple[str, str]:
    return f"{total / 1e6:,.1f}", f"{total / max(count, 1):,.0f}"


def _indices(data_dir: pathlib.Path, names: Sequence[str]) -> list[PreparedIndex]:
    there = ((name, split) for name in names for split in SPLITS)
    return [read_index(data_dir, *one) for one in there if prepared_dir(data_dir, *one).is_dir()]


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = []
    for line in lines:
        first = line[0].ljust(widths[0])
        texts.append("  ".join([first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]))
    return "\n".join(texts)
