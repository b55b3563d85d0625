"""House rules that a test can check: imports go down, and importing starts nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "images": 1,
    "field": 1,
    "anatomy": 1,
    "synthetic": 1,
    "storage": 1,
    "dicom_in": 2,
    "containers": 2,
    "decoding": 3,
    "archive": 3,
    "augmentation": 4,
    "datasets": 4,
    "dicom_out": 4,
    "models": 4,
    "ledger": 4,
    "runtime": 5,
    "drift": 5,
    "notebook": 5,
    "cluster": 6,
    "screening": 6,
    "training": 6,
    "evaluation": 6,
    "report": 6,
    "jobs": 7,
    "__init__.py": 7,
}
RAY_FROM = 5
TORCH_FROM = 4


def sources() -> list[Path]:
    return [f for top in ("fundus", "jobs") for f in sorted((ROOT / top).rglob("*.py"))]


def room_of(file: Path) -> str:
    top, *rest = file.relative_to(ROOT).parts
    return "jobs" if top == "jobs" else rest[0]


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken_rules(file: Path) -> Iterator[str]:
    room = room_of(file)
    floor = FLOORS.get(room, 0)
    for name in imported(file):
        top, *rest = name.split(".")
        if top == "jobs":
            yield f"{name}: nothing imports jobs"
        if top == "ray" and floor < RAY_FROM:
            yield f"{name}: ray belongs on floors {RAY_FROM} and up"
        if top in ("torch", "torchvision") and floor < TORCH_FROM:
            yield f"{name}: torch belongs on floors {TORCH_FROM} and up"
        other = rest[0] if top == "fundus" and rest else room
        if other in FLOORS and other != room and FLOORS[other] >= floor:
            yield f"{name}: {room} is not above {other}"


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_only_go_down(file: Path) -> None:
    assert list(broken_rules(file)) == []


def test_the_rule_detects_an_import_that_goes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test above could not fail."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "fundus" / "images" / "wrong.py"
    file.parent.mkdir(parents=True)
    file.write_text("import ray\nimport torch\nfrom fundus.models import bundle\n")
    assert len(list(broken_rules(file))) == 4  # the module and the name it brings


def test_importing_the_jobs_starts_nothing() -> None:
    check = (
        "import importlib.util, logging, ray\n"
        f"for f in {[str(f) for f in sources() if room_of(f) == 'jobs']!r}:\n"
        "    spec = importlib.util.spec_from_file_location('job', f)\n"
        "    spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "assert not ray.is_initialized()\n"
        "assert not logging.getLogger('fundus').handlers\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_jobs_open_with_their_command_and_carry_the_run_bit() -> None:
    for job in sorted((ROOT / "jobs").glob("*.py")):
        assert job.stat().st_mode & 0o111, f"{job.name} has no run bit: ray job submit exits 126"
        text = job.read_text()
        assert text.startswith("#!/usr/bin/env python\n")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        assert f"python jobs/{job.name}" in docstring
