"""Jobs on a real head that demands a token: both forms of submission, and `deploy/nightly.py`.

A job is sent along in a working directory, or runs from the head's project. The quick tests submit
`jobs/plan.py` in both forms; a slow test sends an adaptation along and runs a screening from the
project. All tests share one head, which also runs the jobs: it is the only node.
"""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import clusters
import pytest
from clusters import ROOT, Head
from test_screening_pipeline import tiny_bundle

from fundus.datasets.synthetic import write_archive
from fundus.models import bundle as bundles
from fundus.synthetic.camera import hospital

pytestmark = pytest.mark.cluster

TOKEN, WRONG = "b" * 64, "c" * 64
JOBS = sorted(f"jobs/{file.name}" for file in (ROOT / "jobs").glob("*.py"))


@pytest.fixture(scope="module")
def head(project: Path) -> Iterator[Head]:
    with clusters.head(cpus=1, token=TOKEN, project=project) as found:
        yield found


def submit(head: Head, *words: str, **env: str) -> subprocess.CompletedProcess:
    return head.ray("job", "submit", *words, RAY_ADDRESS=head.dashboard, timeout=600, **env)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the jobs, as another machine has it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "jobs").mkdir()
    for job in JOBS:
        (folder / job).write_bytes((ROOT / job).read_bytes())
        (folder / job).chmod(0o755)
    (folder / "rates.json").write_text(RATES)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random networks."""
    folder = tmp_path_factory.mktemp("bundle")
    bundles.save(tiny_bundle(), folder)
    return folder


def test_a_job_runs_in_the_heads_project_once_per_id(head: Head) -> None:
    """The file has its run bit and is named as in the project."""
    words = ["--submission-id", "plan-2027-01-31", "--", "jobs/plan.py", "--help"]
    done = submit(head, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage: plan.py" in done.stdout
    again = submit(head, *words)
    assert again.returncode != 0 and "already exists" in again.stdout + again.stderr


def test_a_job_that_is_sent_along_reads_the_files_sent_with_it(head: Head, project: Path) -> None:
    words = ["--working-dir", str(project), "--", "jobs/plan.py", "--rates", "rates.json"]
    done = submit(head, *words, "--pictures", "100000", "--hours", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"on \d+ CPU nodes of 16 cores: [\d.]+ hours", done.stdout)


@pytest.mark.slow
def test_with_a_site_file_both_forms_run_without_options(
    head: Head, project: Path, tiny: Path, tmp_path: Path
) -> None:
    """The job is the only argument, whether it is sent along or runs from the head's project.

    The gate refuses random networks with code 4, which `ray job submit` turns into 1.
    """
    write_archive(tmp_path / "archive", (hospital(),), count=4, seed=1)
    settings = {
        "archive": f"{tmp_path / 'archive'}",
        "results": f"{tmp_path / 'results'}",
        "bundle": f"{tiny}",
        "source": "synthetic:?camera=clinic&count=8&seed=1",
        "target": f"folder:{tmp_path / 'archive'}",
        "storage": f"{tmp_path / 'runs'}",
        "gradability": "off",
    }
    text = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
    text += 'precropped = true\nchange = ["epochs=1", "batch=4"]\n'
    (project / "site.toml").write_text(text)
    sent = ["--working-dir", str(project)]
    sent += ["--runtime-env-json", json.dumps({"env_vars": {"FUNDUS_LOG": "json"}})]
    try:
        adapting = submit(head, *sent, "--", "jobs/adapt.py")
        screening = submit(head, "--", "jobs/screen.py")
    finally:
        (project / "site.toml").unlink()
    assert adapting.returncode == 1, adapting.stdout + adapting.stderr
    [file] = (tmp_path / "runs").glob("*/summary.json")
    assert f"summary: {file}" in adapting.stdout, adapting.stdout
    adapted = json.loads(file.read_text())
    assert (adapted["exit_code"], adapted["published"]) == (4, False)
    assert adapted["target"] == {"used": 4, "left_out": {}}
    logs = (head.folder / "r/session_latest/logs").glob("worker-*.err")
    lines_of_epoch = [
        line for log in logs for line in log.read_text().splitlines() if "epoch 1/1" in line
    ]
    [event] = [json.loads(line) for line in lines_of_epoch]
    assert event["run_id"] == adapted["run"] and event["name"] == "fundus.training.loop"

    assert screening.returncode == 0, screening.stdout + screening.stderr
    [file] = (tmp_path / "results").glob("runs/*/summary.json")
    screened = json.loads(file.read_text())
    assert (screened["exit_code"], screened["listed"], screened["rows"]) == (0, 4, 4)


RATES = """{"read": 0.07, "locate": 0.07, "crop": 0.002, "segment": 0.1, "measure": 0.02,
            "megapixels": 4.4, "megabytes": 0.25}"""


def nightly(head: Head, *words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(ROOT / "deploy/nightly.py"), *words],
        env=head.env | {"RAY_ADDRESS": head.dashboard} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_night_runs_once_and_ends_with_the_jobs_own_code(head: Head, tmp_path: Path) -> None:
    """Bad configuration gives 2, where `ray job submit` returns 1; a second call gives 6."""
    words = ["--night", "2027-01-31", "--archive", str(tmp_path / "none"), "--results", "results"]
    first = nightly(head, *words)
    assert first.returncode == 2, first.stdout + first.stderr
    assert "screen: " in first.stdout
    again = nightly(head, *words)
    assert again.returncode == 6 and "screen-2027-01-31 was submitted already" in again.stderr
    followed = nightly(head, "--follow", *words)
    assert followed.returncode == 2 and "screen: " in followed.stdout, followed.stderr


STRANGERS = {
    "none": {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""},
    "wrong": {"RAY_AUTH_TOKEN": WRONG},
}
HEADERS = {"none": {}, "wrong": {"Authorization": f"Bearer {WRONG}"}}


@pytest.mark.parametrize("token", STRANGERS)
def test_a_stranger_cannot_submit(head: Head, token: str) -> None:
    done = submit(head, "--", "jobs/plan.py", "--help", **STRANGERS[token])
    assert done.returncode != 0 and "usage: " not in done.stdout
    assert re.search("401|403|[Uu]nauth|[Ii]nvalid auth|authentication", done.stdout + done.stderr)
    assert nightly(head, "--archive", "a", "--results", "b", **STRANGERS[token]).returncode == 7


@pytest.fixture(scope="module", autouse=True)
def strange_drivers(head: Head) -> Iterator[list[subprocess.Popen]]:
    """Drivers at the head's own port and as Ray clients, started early: they give up late."""
    drivers = [
        head.driver(f"import ray; ray.init({address!r}); print('inside', ray.nodes())", **token)
        for address in (head.gcs, head.client)
        for token in STRANGERS.values()
    ]
    yield drivers
    for driver in drivers:
        driver.kill()


@pytest.mark.parametrize("token", HEADERS)
@pytest.mark.parametrize("path", ["/api/jobs/", "/api/version", "/nodes?view=summary"])
def test_the_dashboard_tells_a_stranger_nothing(head: Head, path: str, token: str) -> None:
    request = urllib.request.Request(head.dashboard + path, headers=HEADERS[token])
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert refusal.value.code in (401, 403)
    known = urllib.request.Request(
        head.dashboard + path, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert urllib.request.urlopen(known).status == 200


def test_a_stranger_cannot_connect_as_a_driver(strange_drivers: list[subprocess.Popen]) -> None:
    for driver in strange_drivers:
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode != 0 and "inside" not in output, output
