"""report.json fits its schema; report.html is whole, safe and asks nobody for anything."""

import base64
import copy
import html.parser
import json
import pathlib
import re

import jinja2
import jsonschema
import pytest

from rt2_jax.errors import UserError
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report import report as reports
from rt2_jax.report import schema
from rt2_jax.report.background import training_curves
from rt2_jax.report.comparison import compare
from rt2_jax.report.films import decode_strip
from rt2_jax.report.page import render
from rt2_jax.report.schema import check, json_schema

METRICS = [
    {"step": step, "split": split, "loss": 4.0 / (1 + step), "tabletop_web_vqa/loss": 3.0 / (1 + step), "lr": 0.1}
    for step in range(5)
    for split in ("train", "validation")
]


# Whatever makes a browser ask a network for something.
EXTERNAL = re.compile(
    r"""<[a-z][^<>]*\s(?:src|srcset|href|action|poster)\s*=\s*["']?\s*(?!["']?(?:data:|\#))"""
    r"""|url\(\s*["']?(?!data:|\#)|@import|<(?:link|iframe|object|embed|base)\b|\bfetch\(|XMLHttpRequest|https?://""",
    re.IGNORECASE,
)


def external_references(page):
    return [match.group(0) for match in EXTERNAL.finditer(page)]


class Structure(html.parser.HTMLParser):
    """Checks that elements nest, and gathers what they hold."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def parse(page):
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def first_of_each(value):
    """The same JSON value with nothing but the first item of each list (both ends of an interval)."""
    if isinstance(value, dict):
        return {key: first_of_each(item) for key, item in value.items()}
    if isinstance(value, list):
        kept = value if all(isinstance(item, float) for item in value) else value[:1]
        return [first_of_each(item) for item in kept]
    return value


def test_the_schema_is_a_schema_and_the_file_holds_it():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    path = pathlib.Path(schema.__file__).with_name("schema.json")
    again = f"it is made by: python -m rt2_jax.report.schema > {path}"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema(), again


@pytest.mark.parametrize("with_data", [True, False])
def test_reports_fit_the_schema_as_the_real_checker_reads_it(fakes, with_data):
    report = json.loads(json.dumps(fakes.make_report(with_data=with_data), allow_nan=False))
    jsonschema.Draft202012Validator(json_schema()).validate(report)
    assert check(report) is report


def fits(report):
    try:
        return check(report) is report
    except UserError:
        return False


def test_our_checker_finds_what_the_real_one_finds(report):
    """Spoils every place of a report in turn."""
    validator = jsonschema.Draft202012Validator(json_schema())
    tried = 0
    report = first_of_each(report)
    for path in [path for path in places(report) if path]:
        for spoiled in (None, "text", -1, True, [], {}):
            changed = copy.deepcopy(report)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = spoiled
            assert fits(changed) == validator.is_valid(changed), (path, spoiled)
            tried += 1
    assert tried > 500


def test_missing_fields_are_named(report):
    del report["closed_loop"][1]["interval"]
    with pytest.raises(UserError, match=r"missing required field `interval` - at `report\.closed_loop\[1\]`"):
        check(report)


def test_written_files_read_back(tmp_path, report, fakes):
    json_path, html_path = reports.write_report(tmp_path / "new" / "folder", report, [fakes.film()])
    assert reports.read_report(json_path) == report
    assert html_path.read_text(encoding="utf-8").startswith("<!doctype html>")
    # Nothing half-written stays behind.
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["report.html", "report.json"]


def test_a_failed_write_leaves_the_old_report(tmp_path, report, monkeypatch):
    _, html_path = reports.write_report(tmp_path, report)
    before = html_path.read_text(encoding="utf-8")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rt2_jax.files.writing.os.replace", refuse)
    report["title"] = "another"
    with pytest.raises(UserError, match="No space left on device"):
        reports.write_report(tmp_path, report)
    assert html_path.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_not_a_number_is_refused(tmp_path, report):
    report["wall_seconds"] = float("nan")
    with pytest.raises((UserError, ValueError)):
        reports.write_report(tmp_path, report)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": "other"}', '{"schema": "rt2_jax/evaluation", "version": 99}']
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        reports.read_report(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schema": "\xff"}', "report.json is not JSON"),
        (b'{"schema": NaN}', "report.json is not JSON"),
        (b"[" * 100_000, "report.json is nested more than 64 levels deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "report.json is nested more than 64 levels deep"),
        (b"3", "report.json holds a int, it must hold one JSON object"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_in_one_line(data, message, tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        reports.read_report(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_wrong_field_is_named_with_the_file_in_a_short_line(tmp_path, report):
    path = tmp_path / "report.json"
    for field, value in (("machine", "x" * 10**6), ("closed_loop", {"a\nb": 1}), ("version", [[["x"] * 99] * 99] * 9)):
        path.write_text(json.dumps({**report, field: value}))
        with pytest.raises(UserError, match=f"^{path}: .*report.{field}|^{path}: report version") as caught:
            reports.read_report(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises(UserError, match="cannot be read"):
        reports.read_report(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        reports.read_report(tmp_path / ("x" * 300))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.json"):
        reports.read_report(tmp_path / "nowhere.json")


def full_page(report, fakes):
    films = [fakes.film(success=success, control=control, seed=seed) for seed, (success, control) in enumerate(
        ((True, None), (False, None), (False, "wrong_instruction"))
    )]  # fmt: skip
    comparison = compare({"a": report, "b <i>": fakes.make_report(seen=10)})
    return reports.report_page(report, films, training_curves(METRICS), comparison)


def test_the_page_is_well_formed_and_self_contained(report, fakes):
    page = full_page(report, fakes)
    structure = parse(page)
    assert external_references(page) == []
    assert structure.tags.count("svg") >= 5
    assert structure.tags.count("figure") == 3
    for name in ("How far it generalises", "Skill by skill", "Watch it", "What the web taught", "Side by side",
                 "How it was trained", "Actions on held-out frames"):  # fmt: skip
        assert name in "".join(structure.text)


def test_external_references_are_found():
    for bad in (
        '<img src="https://example.org/a.png">',
        "<link rel=stylesheet href=a.css>",
        '<a href="page.html">',
        "<style>a{background:url(a.png)}</style>",
        '<style>@import "a.css";</style>',
        "<iframe></iframe>",
    ):
        assert external_references(bad), bad
    assert external_references('<img src="data:image/webp;base64,AA"><a href="#top">') == []


def test_the_page_shows_the_numbers(report, fakes):
    words = " ".join(parse(full_page(report, fakes)).text)
    for number in (
        "36 of 40 episodes",
        "12 of 20 episodes",
        "9 of 20 episodes",
        "1 of 20 episodes",
        "80%",
        "90% → 80%",
    ):
        assert number in words, number
    # The paper's figures are never shown without what they are.
    assert "real robots in real kitchens" in words and "cannot be compared" in words


def test_text_from_outside_stays_text(report, fakes):
    hostile = '</script><img src=x onerror="alert(1)">'
    report["title"] = hostile
    report["web"][0]["samples"][0]["answer"] = hostile
    films = [fakes.film(instruction=hostile, text=f"Plan: {hostile}. Action: 1 128")]
    page = reports.report_page(report, films)
    structure = parse(page)
    assert page.count("<script") == page.count("</script>") == 2
    assert ("onerror", "alert(1)") not in structure.attributes
    assert hostile in " ".join(structure.text)


def test_a_template_without_its_values_is_a_defect():
    with pytest.raises(jinja2.UndefinedError, match="rows"):
        render("numbers.html")


def test_films_on_the_page_decode_and_carry_their_actions(report, fakes):
    film = fakes.film(frames=7, seed=3)
    page = reports.report_page(report, [film])
    encoded = re.search(r'class="strip"[^>]*src="data:image/webp;base64,([^"]+)"', page)[1]
    assert decode_strip(base64.b64decode(encoded), 7).shape == film.frames.shape
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert data["bins"] == film.bins.tolist()
    assert data["steps"] == list(range(7))
    assert data["actions"][2] == pytest.approx(film.actions[2].tolist(), abs=1e-5)


def test_films_are_left_out_until_the_page_fits(tmp_path, report, fakes):
    films = [fakes.film(seed=seed, frames=20) for seed in range(12)]
    _, full = reports.write_report(tmp_path / "a", report, films)
    limit = full.stat().st_size - 20_000
    _, cut = reports.write_report(tmp_path / "b", report, films, max_page_bytes=limit)
    shown = cut.read_text(encoding="utf-8").count("<figure")
    assert cut.stat().st_size <= limit
    assert 0 < shown < 12


def test_an_evaluation_without_episodes_has_a_page(fakes, report):
    report["closed_loop"], report["summary"] = [], []
    page = reports.report_page(report)
    words = " ".join(parse(page).text)
    assert "no episodes were run" in words
    assert "How far it generalises" not in words


def test_curves_come_from_validation_and_skip_what_is_no_loss():
    curves = training_curves([*METRICS, {"step": 9, "split": "train", "loss": float("nan")}])
    assert [curve.name for curve in curves] == ["all, training", "web vqa, held out"]
    assert curves[0].points == tuple((float(step), 4.0 / (1 + step)) for step in range(5))
    assert training_curves([]) == []


def test_the_documented_example_fits_the_schema():
    page = pathlib.Path(__file__).parents[2] / "docs" / "report.md"
    (example,) = re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    report = check(json.loads(example))
    jsonschema.Draft202012Validator(json_schema()).validate(report)
    assert report["closed_loop"][0]["interval"] == [round(end, 4) for end in wilson_interval(1, 2)]
    assert parse(reports.report_page(report)).tags.count("svg") >= 2
