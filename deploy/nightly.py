#!/usr/bin/env python
"""Submit the night's screening once, follow it, and end with its exit code.

    RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265 deploy/nightly.py \
        --archive s3://clinic --results s3://screening/results --bundle s3://screening/bundles/clinic
    RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265 deploy/nightly.py

The second form is for a head whose project folder has a site file, site.toml (docs/site.toml).
All other arguments are passed to jobs/screen.py. With another bundle, trained or adapted, the whole
archive is screened again. Write a value that begins with a dash as --option=value.

The submission's id is the night's date, screen-2027-01-31, and Ray refuses an id twice: a head
screens a night once, however often cron calls. A new head knows no ids; there a second run of a
night finds all rows written. `--try 2`, before the other arguments, gives another id for a night
that failed; finished work is not repeated. `--follow` follows a night that was submitted already,
for example after a lost connection, and ends with its exit code.

Exit codes: those of jobs/screen.py (`ray job submit` itself returns only 0 and 1), 2 also for a
--night that is not a date; 6 this night was submitted already; 7 the cluster does not answer or has
lost the job, which may still run: use --follow.
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
    """The id "screen-2027-01-31", or "...-2" for the second try; ValueError if it is no date."""
    return f"screen-{date.fromisoformat(night)}" + (f"-{attempt}" if attempt > 1 else "")


def known(client: JobSubmissionClient, name: str) -> bool:
    """Whether a job of this id was submitted."""
    return any(job.submission_id == name for job in client.list_jobs())


def submit(client: JobSubmissionClient, name: str, entrypoint: str) -> bool:
    """Submit the job; False if it was submitted already."""
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
    """Print the job's output as it comes; return its exit code."""
    asyncio.run(_print_output(client, name))
    while client.get_job_status(name) not in ENDED:
        time.sleep(1)
    code = client.get_job_info(name).driver_exit_code
    return NO_ANSWER if code is None else code


async def _print_output(client: JobSubmissionClient, name: str) -> None:
    async for lines in client.tail_job_logs(name):
        print(lines, end="", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, follow, print the exit code and return it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--night", default=f"{datetime.now(UTC):%Y-%m-%d}", help="default: today")
    parser.add_argument("--try", dest="attempt", type=int, default=1, metavar="N")
    parser.add_argument("--follow", action="store_true", help="a night that was submitted already")
    args, screening = parser.parse_known_args(arguments)
    try:
        name = submission_id(args.night, args.attempt)
    except ValueError:
        print(f"nightly: --night {args.night}: give a date such as 2027-01-31", file=sys.stderr)
        return BAD_NIGHT
    try:
        client = JobSubmissionClient()
        entrypoint = shlex.join(["jobs/screen.py", *screening])
        if not args.follow and not submit(client, name, entrypoint):
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
