"""One page: template, style and script in a single file that sends no request."""

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> bytes:
    """Render a template as one HTML file in UTF-8.

    The template engine escapes all values. The Content-Security-Policy of the page allows only this
    style and this script, by their digests, and pictures from data: URIs. It forbids all requests.
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


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with `digits` decimals; a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def shared_folder(uris: Sequence[str]) -> str:
    """The folder that all URIs share, with its slash."""
    if not uris:
        return ""
    low, high = min(uris), max(uris)
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    cut = low[:shared].rfind("/") + 1
    return low[:cut] if PurePosixPath(low[cut:]).name else ""


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
    known.filters["fixed"] = fixed
    known.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return known
