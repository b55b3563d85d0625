#!/usr/bin/env python
"""Submit the night's screening, once, follow it and end with its own exit code.

    RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265 deploy/nightly.py \
        --archive s3://clinic --results s3://screening/results --bundle s3://screening/bundles/clinic
    RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265 deploy/nightly.py

The second form is for a head whose project folder has a site file, site.toml (docs/site.toml).
Everything else is handed to jobs/screen.py: another bundle there, adapted or calibrated anew, means
that the whole archive is screened anew. A value that begins with a dash is written --option=value.
The submission's id is the night's date, screen-2027-01-31, and Ray refuses an id that it knows: a
head screens a night once, however often cron calls. A new head knows no ids; there a second run of
a night finds all rows written. `--try 2` before the others is another id, for a night that failed;
what was done is not done again. `--follow` follows a night that was submitted already, as after a
lost connection, to its exit code.

Exit codes: those of jobs/screen.py (`ray job submit` itself knows only 0 and 1), 2 for a --night
that is no date too, and 6 this night was submitted already; 7 the cluster could not be asked, or
lost the job: it may run on, ask with --follow.
"""

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime

import aiohttp
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

BAD_NIGHT, SUBMITTED_ALREADY, NO_ANSWER = 2, 6, 7
ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


def submission_id(night: str, attempt: int) -> str:
    """screen-2027-01-31, and -2 for the second try; ValueError if the night is no date."""
    return f"screen-{date.fromisoformat(night)}" + (f"-{attempt}" if attempt > 1 else "")


def known(client: JobSubmissionClient, name: str) -> bool:
    return any(job.submission_id == name for job in client.list_jobs())


def submit(client: JobSubmissionClient, name: str, entrypoint: str) -> bool:
    """Whether this call is the one that submitted the job."""
    if known(client, name):
        return False
    try:
        client.submit_job(entrypoint=entrypoint, submission_id=name)
    except RuntimeError as error:
        if "already exists" in str(error):  # another call was faster
            return False
        raise
    return True


def follow(client: JobSubmissionClient, name: str) -> int:
    """Print the job's output as it comes; its exit code."""
    asyncio.run(_print_output(client, name))
    while client.get_job_status(name) not in ENDED:
        time.sleep(1)
    code = client.get_job_info(name).driver_exit_code
    return NO_ANSWER if code is None else code


async def _print_output(client: JobSubmissionClient, name: str) -> None:
    async for lines in client.tail_job_logs(name):
        print(lines, end="", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, follow, say how it ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--night", default=f"{datetime.now(UTC):%Y-%m-%d}", help="default: today")
    parser.add_argument("--try", dest="attempt", type=int, default=1, metavar="N")
    parser.add_argument("--follow", action="store_true", help="a night that was submitted already")
    given, screening = parser.parse_known_args(arguments)
    try:
        name = submission_id(given.night, given.attempt)
    except ValueError:
        print(f"nightly: --night {given.night}: give a date, as 2027-01-31", file=sys.stderr)
        return BAD_NIGHT
    try:
        client = JobSubmissionClient()
        entrypoint = shlex.join(["jobs/screen.py", *screening])
        if not given.follow and not submit(client, name, entrypoint):
            print(f"nightly: {name} was submitted already; --follow follows it", file=sys.stderr)
            return SUBMITTED_ALREADY
        code = follow(client, name)
    except (ConnectionError, RuntimeError, RayError, aiohttp.ClientError) as error:
        print(f"nightly: {error}", file=sys.stderr)
        return NO_ANSWER
    print(f"nightly: {name} ended with {code}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
