"""The site file replaces arguments, is overridden by them, and each mistake is one sentence."""

from pathlib import Path

import job_files
import pytest
from test_models_bundle import tiny_bundle

from fundus import site
from fundus.errors import ConfigurationError
from fundus.models import bundle as bundles

SITE = """
name = "North"
archive = "photographs"
results = "rows"
bundle = "b"
source = "synthetic:?count=8"
target = ["folder:photographs"]
storage = "checkpoints"
recipe = "laptop"
change = ["epochs=3"]
gradability = "advise"
precropped = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a site file and its bundle."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(SITE)
    bundles.save(tiny_bundle(), tmp_path / "b")
    return tmp_path


def test_jobs_without_arguments_do_what_the_site_file_says(folder: Path) -> None:
    adapting, name = job_files.load("adapt").parse([])
    assert (adapting.bundle, adapting.to, adapting.storage) == ("b", "b", "checkpoints")
    assert adapting.sources == ("synthetic:?count=8",)
    assert adapting.targets == ("folder:photographs",)
    assert (adapting.recipe.name, adapting.recipe.epochs) == ("laptop", 3)
    assert adapting.precropped
    config = job_files.load("screen").parse([])
    assert config.site == name == "North"
    screening = config.screening
    assert (screening.archive, screening.results) == ("photographs", "rows")
    assert (screening.gradability, screening.precropped) == ("advise", True)


def test_every_job_of_a_bundle_reads_the_site_file(folder: Path) -> None:
    labelled = ["--set", "synthetic:?count=8"]
    calibrating = job_files.load("calibrate").parse(labelled)
    assert (calibrating.bundle, calibrating.precropped) == ("b", True)
    evaluating = job_files.load("evaluate").parse([*labelled, "--out", "o", "--no-precropped"])
    assert (evaluating.bundle, evaluating.precropped) == ("b", False)
    reporting = job_files.load("report").parse([])
    assert (reporting.results, reporting.bundle, reporting.report.site) == ("rows", "b", "North")
    assert job_files.load("report").parse(["--name", "South"]).report.site == "South"


def test_arguments_override_the_site_file(folder: Path) -> None:
    args = ["--recipe", "quick", "--source", "synthetic:?count=9", "--change", "batch=4"]
    adapting, _ = job_files.load("adapt").parse(args)
    assert adapting.sources == ("synthetic:?count=9",)
    assert (adapting.recipe.name, adapting.recipe.epochs, adapting.recipe.batch) == ("quick", 2, 4)
    assert job_files.load("screen").parse(["--results", "r"]).screening.results == "r"
    assert not job_files.load("screen").parse(["--no-precropped"]).screening.precropped


def test_another_site_file_is_named_by_an_argument(folder: Path) -> None:
    (folder / "south.toml").write_text('archive = "south"\nresults = "r"\nbundle = "b"\n')
    assert job_files.load("screen").parse(["--site", "south.toml"]).screening.archive == "south"


def test_the_example_is_a_site_file_with_every_key() -> None:
    example = site.read(Path(__file__).parent.parent / "docs/site.toml")
    assert set(example) == set(site.KEYS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("archive = ", "is not TOML"),
        ('archiv = "a"', "there is no key 'archiv'; keys: name, archive"),
        ("archive = 5", "archive is 5; give a text in quotes"),
        ("source = [5]", "source is [5]; give a text in quotes or a list of them"),
        ('precropped = "yes"', "precropped is 'yes'; give true or false"),
        ('results = "r"', "give --archive, or put archive into site.toml"),
        ('archive = "a"\nresults = "r"\ngradability = "odd"', "gradability is 'odd'"),
        ('archive = "a"\nresults = "r"\nbundle = "nowhere"', "nowhere is no bundle"),
    ],
)
def test_a_mistake_in_the_site_file_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    (folder / "site.toml").write_text(text)
    assert job_files.load("screen").main([]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_missing_site_file_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: no such file"):
        site.read(Path("nowhere.toml"))
