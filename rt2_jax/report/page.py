"""The templates of the report's pages: every value that they show is escaped, unless it is `Markup` already.

A page is one HTML file that opens anywhere, offline: style, script and pictures are in it.
"""

import functools
import importlib.resources
from typing import Any

import jinja2
from markupsafe import Markup

from rt2_jax.report import words


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rt2_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "percent": words.percent,
        "interval": words.interval_words,
        "measure": words.measure_words,
        "run": words.run_words,
        "spaced": words.spaced,
        "unit": words.unit_words,
    }
    return environment


def render(template: str, **values: Any) -> Markup:
    """The markup of one of ``templates/``; a value that it names and is not given is an error.

    Args:
        template: the file's name.
        values: what it shows; `Markup`, such as a plot or another template's, stands as it is.
    """
    return Markup(_environment().get_template(template).render(values))


def render_page(template: str, **values: Any) -> str:
    """A whole file, from a template that extends page.html: `title`, `sections` (some may be None), its own."""
    assets = {name: Markup(_text(f"page.{kind}")) for name, kind in (("style", "css"), ("script", "js"))}
    return str(render(template, **assets, **values))


def _text(name: str) -> str:
    return importlib.resources.files("rt2_jax.report").joinpath("templates", name).read_text(encoding="utf-8")
