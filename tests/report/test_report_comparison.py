"""Runs side by side."""

import io

import pytest
from rich.console import Console

from rt2_jax.errors import UserError
from rt2_jax.report.comparison import compare, comparison_section
from rt2_jax.report.report import comparison_page
from rt2_jax.report.terminal import comparison_table, summary_tables


def printed(renderable):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_lines_pool_groups_and_leave_gaps(fakes):
    full, bare = fakes.make_report(), fakes.make_report(seen=10, with_data=False)
    comparison = compare({"co-fine-tuned": full, "scratch": bare})
    lines = {line.label: line.cells for line in comparison.lines}
    assert lines["Seen tasks"][0].value == pytest.approx(36 / 40)
    assert lines["Seen tasks"][1].value == pytest.approx(20 / 40)
    assert lines["Seen tasks"][0].interval[0] < 0.9 < lines["Seen tasks"][0].interval[1]
    # Controls are no part of the policy's rate.
    assert lines["Seen tasks"][0].trials == 40
    assert lines["questions: exact match"][0].value == pytest.approx(0.8)
    assert lines["questions: exact match"][1].value is None
    assert lines["action tokens right"][1].value is None


def test_the_section_and_the_table_show_every_run(fakes):
    comparison = compare({"one <i>": fakes.make_report(), "two": fakes.make_report(seen=2)})
    page = comparison_section(comparison)
    assert "one &lt;i&gt;" in page and "one <i>" not in page
    assert "90%" in page and "10%" in page
    assert comparison_page(comparison).count("<svg") == 1
    table = printed(comparison_table(comparison))
    assert "two" in table and "Objects, hard" in table and "10%" in table


def test_the_terminal_shows_splits_controls_and_skills(report):
    text = printed(summary_tables(report))
    for words in ("36/40", "told to do something else", "shown another scene", "Symbols", "mean distance", "dyaw"):
        assert words in text, words
    assert text.index("Seen") < text.index("told to do something else") < text.index("Objects, hard")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_or_too_many_runs(report, count):
    with pytest.raises(UserError, match="takes 2 to 8 reports"):
        compare({str(index): report for index in range(count)})
