"""report.json and report.html: written whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rt2_jax.evaluate.results import Film
from rt2_jax.files.writing import write_error, write_text
from rt2_jax.report import background, film_cards, held_out, sections
from rt2_jax.report.comparison import Comparison, comparison_section
from rt2_jax.report.films import choose_films
from rt2_jax.report.page import render_page
from rt2_jax.report.plots import Curve
from rt2_jax.report.schema import check
from rt2_jax.typed import read_json, shown_path

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
# More films than this are scrolled past; `choose_films` picks varied ones.
MAX_FILMS = 36
# A page larger than this is a nuisance to mail and to open; films are left out until it fits.
MAX_PAGE_BYTES = 8_000_000


def read_report(path: Path) -> dict[str, Any]:
    """The dictionary in a report.json, checked against the schema.

    Raises:
      UserError: no such file, or no report of this version.
    """
    report = read_json(path, fix="give a report.json of `rt2 eval`")
    return check(report, shown_path(path))


def report_page(
    report: Mapping[str, Any],
    films: Sequence[Film] = (),
    curves: Sequence[Curve] = (),
    comparison: Comparison | None = None,
) -> str:
    """The page of one report; `films`, training `curves` and a `comparison` have their sections where given."""
    body = [
        sections.generalisation(report),
        sections.by_skill(report),
        sections.measures(report),
        film_cards.episodes(films),
        held_out.web(report),
        held_out.actions(report),
        comparison_section(comparison) if comparison else None,
        background.training(curves),
        sections.numbers(report),
        background.provenance(report),
    ]
    return render_page(
        "report.html",
        title=report["title"],
        lead=sections.lead(report),
        checkpoint=report["checkpoint"],
        created=report["created"],
        cards=sections.headline(report),
        sections=body,
    )


def comparison_page(comparison: Comparison) -> str:
    """A page with nothing but several runs side by side."""
    return render_page(
        "comparison_page.html",
        title="Comparison of " + ", ".join(comparison.names),
        names=comparison.names,
        sections=[comparison_section(comparison)],
    )


def _fitting_page(
    report: Mapping[str, Any], films: Sequence[Film], curves: Sequence[Curve], comparison: Comparison | None, limit: int
) -> str:
    """The page with as many of the films as fit `limit` bytes, fewest dropped."""
    count = min(len(films), MAX_FILMS)
    while True:
        page = report_page(report, choose_films(films, count), curves, comparison)
        if len(page.encode()) <= limit or count == 0:
            return page
        count = count * 3 // 4


def write_report(
    out_dir: Path,
    report: Mapping[str, Any],
    films: Sequence[Film] = (),
    curves: Sequence[Curve] = (),
    comparison: Comparison | None = None,
    max_page_bytes: int = MAX_PAGE_BYTES,
) -> tuple[Path, Path]:
    """Writes report.json and report.html into `out_dir` and returns their paths.

    The page holds no more films than `max_page_bytes` allow. NaN and infinities are refused: they are not JSON.
    """
    out_dir = Path(out_dir)
    json_path, html_path = out_dir / REPORT_JSON, out_dir / REPORT_HTML
    content = json.dumps(check(dict(report)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    page = _fitting_page(report, films, curves, comparison, max_page_bytes)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_text(json_path, content)
        write_text(html_path, page)
    except OSError as error:
        raise write_error(out_dir, error) from error
    return json_path, html_path
