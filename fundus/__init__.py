"""Glaucoma screening from colour fundus photographs that survives a new camera.

For notebooks: `fundus.measure("eye.jpg")` and `fundus.read_results("results")`. Both load on first
use, so that `import fundus` costs nothing and needs neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fundus.notebook.measure import measure
    from fundus.notebook.results import read_results

__version__ = "0.1.0"
__all__ = ["measure", "read_results"]

_HOMES = {"measure": "fundus.notebook.measure", "read_results": "fundus.notebook.results"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fundus' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
