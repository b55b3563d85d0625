#!/usr/bin/env python
"""Submit the night's screening, once, follow it and end with its own exit code.

    RAY_ADDRESS=http://127.0.0.1:8265 deploy/nightly.py \
        --archive s3://clinic --results s3://screening/results --bundle s3://screening/bundles/clinic

Everything is handed to jobs/screen.py: another bundle there, adapted or calibrated anew, means that
the whole archive is screened anew. A value that begins with a dash is written --option=value.
The submission's id is the night's date, screen-2027-01-31, and Ray refuses an id that it knows:
however often cron calls, a night is screened once. `--try 2` before the others is another id, for a
night that failed; what was done is not done again.

Exit codes: those of jobs/screen.py (`ray job submit` itself knows only 0 and 1), and
6 this night was submitted already; 7 the cluster could not be asked, or lost the job.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

SUBMITTED_ALREADY, NO_ANSWER = 6, 7
ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


def submission_id(night: str, attempt: int) -> str:
    """screen-2027-01-31, and -2 for the second try; ValueError if the night is no date."""
    datetime.fromisoformat(night)
    return f"screen-{night}" + (f"-{attempt}" if attempt > 1 else "")


def known(client: JobSubmissionClient, name: str) -> bool:
    return any(job.submission_id == name for job in client.list_jobs())


def follow(client: JobSubmissionClient, name: str) -> int:
    """Print the job's output as it comes; its exit code."""
    printed = 0
    while True:
        status = client.get_job_status(name)
        output = client.get_job_logs(name)
        print(output[printed:], end="", flush=True)
        printed = len(output)
        if status in ENDED:
            code = client.get_job_info(name).driver_exit_code
            return NO_ANSWER if code is None else code
        time.sleep(5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, follow, say how it ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--night", default=f"{datetime.now(UTC):%Y-%m-%d}", help="default: today")
    parser.add_argument("--try", dest="attempt", type=int, default=1, metavar="N")
    given, screening = parser.parse_known_args(arguments)
    try:
        name = submission_id(given.night, given.attempt)
        client = JobSubmissionClient()
        if known(client, name):
            print(f"nightly: {name} was submitted already", file=sys.stderr)
            return SUBMITTED_ALREADY
        client.submit_job(entrypoint=shlex.join(["jobs/screen.py", *screening]), submission_id=name)
        code = follow(client, name)
    except (ConnectionError, RuntimeError, RayError) as error:
        print(f"nightly: {error}", file=sys.stderr)
        return NO_ANSWER
    print(f"nightly: {name} ended with {code}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
