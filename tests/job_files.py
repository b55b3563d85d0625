"""The jobs as modules, to be called in this process."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent.parent / "jobs"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))


def load(name: str) -> ModuleType:
    """Load a new copy of the module `jobs/<name>.py`."""
    spec = importlib.util.spec_from_file_location(f"job_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module
