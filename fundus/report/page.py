"""One page: a template, its style and its script in a single file that asks nothing of anybody."""

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> bytes:
    """A template of this room as one HTML file in UTF-8.

    Values are escaped by the template engine. The page's own Content-Security-Policy lets this
    very style and this very script run, by their digests, shows pictures from data: URIs alone,
    and forbids every request.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = _environment().get_template(template)
    return page.render(policy=policy, style=Markup(style), script=Markup(script), **values).encode()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@lru_cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text()


@lru_cache
def _environment() -> Environment:
    known = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known.filters["thousands"] = lambda number: f"{number:,}"
    known.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return known
