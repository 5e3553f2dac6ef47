"""The page at ``/``: one document that loads nothing from elsewhere and reads ``/status.json`` every second."""

import functools
import importlib.resources

# The page's own style and script, frames as data, its own server, and nothing else.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@functools.cache
def status_page() -> str:
    """The HTML document; send it with the Content-Security-Policy `POLICY`."""
    folder = importlib.resources.files("rt2_jax.serve") / "page"
    page, style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return page.replace("/*CSS*/", style).replace("/*JS*/", script)
