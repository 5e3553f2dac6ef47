"""The page around the report's sections: one HTML file that opens anywhere, offline."""

import html
import importlib.resources
from collections.abc import Iterable


def _asset(name: str) -> str:
    return importlib.resources.files("rt2_jax.report").joinpath(name).read_text(encoding="utf-8")


def escape(content: object) -> str:
    """Any value as text of a page."""
    return html.escape(str(content))


def section(title: str, about: str, *body: str, anchor: str) -> str:
    """A titled part of the page; `about` is one or two sentences of markup under the title."""
    intro = f'<p class="about">{about}</p>' if about else ""
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>{intro}{"".join(body)}</section>'


def panel(*body: str) -> str:
    return f'<div class="panel">{"".join(body)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """(class of the sign, words) pairs in a line."""
    return (
        '<div class="legend">'
        + "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in entries)
        + "</div>"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]], numeric: frozenset[int] = frozenset()) -> str:
    """A table of ready-made markup; columns in `numeric` are right-aligned."""

    def cells(tag: str, row: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if index in numeric else ''}>{cell}</{tag}>" for index, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def render_page(title: str, head: str, sections: Iterable[str], foot: str) -> str:
    """The whole file as a string.

    `head` is the markup inside the header, below which the sections follow in order; empty ones leave no trace.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_asset('page.css')}</style>\n</head>\n<body>\n<main>\n"
        f'<header><button id="theme" type="button" aria-label="Change the colour theme">Theme</button>{head}</header>\n'
        + "\n".join(part for part in sections if part)
        + f"\n<footer>{foot}</footer>\n</main>\n<script>{_asset('page.js')}</script>\n</body>\n</html>\n"
    )
