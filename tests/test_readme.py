"""Every command of README.md and docs/ exists, and their tables hold.

The commands of the README are run, on smaller sets, for one epoch of a tiny network, unless they
name something under data/ or on s3://. Those and the commands of the guides are only parsed. The
Python examples run after the README's commands.
"""

import ast
import importlib
import inspect
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pyarrow as pa
import pytest
from ray.scripts.scripts import cli
from test_cluster_sizing import RATES
from test_screening_pipeline import tiny_bundle
from training_here import train_here

from fundus.datasets.public import LAYOUTS, open_set
from fundus.datasets.synthetic import clinic, hospital, write_archive
from fundus.ledger import row, table
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED, SOURCE_ONLY
from fundus.models.thresholds import Thresholds
from fundus.training.gate import Limits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {file.name: file.read_text() for file in sorted((ROOT / "docs").glob("*.md"))}
RESULTS, RESEARCHER, ENGINEER = (
    DOCS[f"{name}.md"] for name in ("results", "researcher", "engineer")
)

Command = list[str]
TINY_NETWORK = "--from-scratch --change epochs=1 --change side=32 --change network.aspp_channels=8"
SMALLER = {
    "train.py": [*TINY_NETWORK.split(), "--change", "members=1"],
    "adapt.py": ["--change", "epochs=1"],
    "calibrate.py": [],
    "evaluate.py": ["--limit", "2"],
    "screen.py": [],
    "report.py": [],
}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell(text: str) -> list[Command]:
    return [words for block in blocks("sh", text) for words in commands(block)]


def commands(text: str) -> list[Command]:
    """The commands of a shell text, without comments and the variables set before them."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [_without_variables(words) for words in found if words and words[0] != "export"]


def _without_variables(words: Command) -> Command:
    first = next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    return words[first:]


def docstring_commands() -> Iterator[Command]:
    """The commands in the docstrings of the jobs, except those that end in dots."""
    for job in SMALLER:
        docstring = ast.get_docstring(ast.parse((ROOT / "jobs" / job).read_text())) or ""
        indented = re.findall(r"^    (\S.*(?:\\\n.*)?)", docstring, re.MULTILINE)
        yield from (words for words in commands("\n".join(indented)) if words[-1] != "...")


README_COMMANDS = shell(README)
SHELL = [words for text in (README, *DOCS.values()) for words in shell(text)]
ELSEWHERE = re.compile("data/|s3://")
RUN = [w for w in README_COMMANDS if w[0] == "python" and not any(map(ELSEWHERE.search, w))]


def parse_job(words: Command) -> None:
    """`jobs/x.py ARGUMENTS` through the job's own parser; SystemExit or ValueError if it fails."""
    name, *arguments = words
    if name == "deploy/nightly.py":  # it passes its arguments on
        name = "jobs/screen.py"
    if not name.startswith("jobs/"):
        return assert_options(ROOT / name, arguments)
    importlib.import_module(f"jobs.{Path(name).stem}").parse(arguments)


def assert_options(script: Path, arguments: list[str]) -> None:
    """Check that a script whose parser cannot be called knows each option."""
    known = script.read_text()
    for word in arguments:
        assert not word.startswith("--") or f'"{word.partition("=")[0]}"' in known, word


def parse_ray(words: Command) -> Command:
    """The job that a `ray` command submits, if any; click's own error if it is no such command."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    return list(command.make_context(command.name, words).params.get("entrypoint", ()))


COMMANDS = {" ".join(words): words for words in [*SHELL, *docstring_commands()]}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_each_command_exists(
    words: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundles, "load", lambda folder: tiny_bundle())
    Path("rates.json").write_text(json.dumps(vars(RATES)))
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "ray":
        entrypoint = parse_ray(words[1:])
        if entrypoint:
            parse_job([word for word in entrypoint if word != "python"])
    elif words[0] == "python":
        parse_job(words[1:])
    else:
        parse_job(words)


def test_every_example_of_the_readme_is_shell_or_python_and_every_job_has_one() -> None:
    assert set(re.findall(r"^```(\w*)$", README, re.MULTILINE)) == {"sh", "python", ""}
    assert README.count("\n```") == 2 * len(blocks("sh", README) + blocks("python", README))
    assert {Path(words[1]).name for words in RUN} == set(SMALLER), "a job without a run example"


def test_arguments_that_name_data_sets_fail_only_for_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt layout or key would be a ValueError."""
    monkeypatch.chdir(tmp_path)
    specs = {word for words in SHELL for word in words if re.match(r"[\w-]+:data/", word)}
    assert len(specs) > 2
    for spec in specs:
        with pytest.raises(FileNotFoundError):
            open_set(spec)


def described(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_table_of_columns_matches_the_schema() -> None:
    columns = [(f"`{field.name}`", kind(field), meaning(field)) for field in row.SCHEMA]
    assert_table("columns", described(columns, ("column", "type", "what it holds")))


def kind(field: pa.Field) -> str:
    return f"list of {field.type.value_type}" if pa.types.is_list(field.type) else str(field.type)


def meaning(field: pa.Field) -> str:
    """A column's description; the statuses have a table of their own."""
    if field.name == "status":
        return "one word of the list below"
    return field.metadata[b"description"].decode()


def test_the_table_of_statuses_matches_the_closed_list() -> None:
    statuses = [(f"`{name}`", meaning) for name, meaning in row.STATUSES.items()]
    assert_table("statuses", described(statuses, ("status", "meaning")))


def test_the_table_of_flags_matches_the_closed_list() -> None:
    flags = [(f"`{name}`", meaning) for name, meaning in row.FLAGS.items()]
    assert_table("flags", described(flags, ("flag", "meaning")))


def assert_table(name: str, wanted: str) -> None:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    written = RESULTS.partition(begin)[2].partition(end)[0]
    assert written == wanted, f"put between {begin}and {end} in docs/results.md:\n{wanted}"


def test_the_table_of_layouts_names_each_layout_with_its_keys() -> None:
    written = dict(re.findall(r"^\| `([\w-]+):\w*` \| .* \| (.*) \|$", RESEARCHER, re.MULTILINE))
    assert list(written) == list(LAYOUTS)
    for layout, reader in LAYOUTS.items():
        keys = [k.name for k in inspect.signature(reader).parameters.values() if k.kind == 3]
        assert re.findall(r"`(\w+)`", written[layout]) == keys, layout


def test_the_table_of_exit_codes_has_the_code_of_the_gate() -> None:
    refused = importlib.import_module("jobs.adapt").REFUSED
    assert f"\n| {refused} | `adapt.py`: the gate refused" in ENGINEER


def test_the_method_names_the_limits_of_the_gate() -> None:
    for name, limit in vars(Limits()).items():
        assert re.search(rf"\b{limit}\b", DOCS["method.md"].partition("## The gate")[2]), name


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in {"README.md": README, **DOCS}.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, heading = link.partition("#")
            target = folder / path if path else folder / name
            assert target.exists(), f"{name}: {link}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
                assert heading in anchors, f"{name}: {link}"
        for path in re.findall(r"`((?:fundus|jobs|tests|benchmarks|deploy|docs)/[\w/.-]*)", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


@pytest.mark.slow
def test_the_commands_of_the_readme_lead_from_training_to_rows(
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one process; tests/test_jobs_errors.py starts one job as a process of its own."""
    monkeypatch.chdir(tmp_path)
    train_here(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_archive(Path("demo/archive"), (clinic(), hospital()), count=1, seed=1)
    for words in RUN:
        job = Path(words[1]).name
        smaller = [re.sub(r"(clinic&count=)\d+", r"\g<1>8", word) for word in words[2:]]
        smaller = [re.sub(r"(hospital&count=)\d+", r"\g<1>2", word) for word in smaller]
        code = importlib.import_module(f"jobs.{job[:-3]}").main([*smaller, *SMALLER[job]])
        # A tiny network of one epoch may well fail the gate; eight eyes are too few to calibrate.
        expected = {"adapt.py": (0, 4), "calibrate.py": (2,)}.get(job, (0,))
        output = capsys.readouterr()
        assert code in expected, output.out + output.err
        if job == "calibrate.py":
            assert "10 of each" in output.err
        if job in ("train.py", "adapt.py"):
            make_usable(published=code == 0)
    assert "ensemble" in Path("evaluation/table.txt").read_text()
    assert table.read("results", ["status"])["status"].to_pylist() == ["ok", "ok"]
    known: dict[str, object] = {}
    for text in (README, RESULTS, RESEARCHER):
        for block in blocks("python", text):
            exec(compile(block, "a document", "exec"), known)
    assert known["whole"].shape == (known["eye"].height, known["eye"].width)  # type: ignore[attr-defined]


def make_usable(*, published: bool) -> None:
    """Let an untrained bundle find a disc everywhere; publish what the gate refused."""
    mine, adapted = Path("runs/mine"), Path("runs/adapted")
    bundle = replace(bundles.load(mine), thresholds=Thresholds(0, 0, 0))
    bundles.save(bundle, mine)
    if SOURCE_ONLY in bundle.networks and not published:
        bundles.save(bundle.with_network(ADAPTED, bundle.networks[SOURCE_ONLY]), adapted)
