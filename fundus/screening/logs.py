"""Logs as JSON lines with the run's id, on a cluster: FUNDUS_LOG=json asks for them.

They go where Ray keeps the logs of every process, /tmp/ray/session_latest/logs on each node, with
Ray's ids of job, node, worker and task in each line. On a terminal Ray's own text stays.
"""

import logging
import os
from typing import Any

import ray

RUN_ID = "FUNDUS_RUN_ID"


def ray_options() -> dict[str, Any]:
    """Arguments for `ray.init`; none unless FUNDUS_LOG is json."""
    if os.environ.get("FUNDUS_LOG") != "json":
        return {}
    mark_records()
    return {
        "logging_config": ray.LoggingConfig(
            encoding="JSON", additional_log_standard_attrs=["name"]
        ),
        "runtime_env": {"worker_process_setup_hook": "fundus.screening.logs.mark_records"},
    }


def name_run(run_id: str) -> dict[str, str]:
    """Name the run in this process's records from now on; what a worker's environment must hold.

    Nothing unless FUNDUS_LOG is json.
    """
    if os.environ.get("FUNDUS_LOG") != "json":
        return {}
    os.environ[RUN_ID] = run_id
    return {RUN_ID: run_id}


def mark_records() -> None:
    """From now on every record of this process says the run, once it has a name."""
    plain = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        record.run_id = os.environ.get(RUN_ID)
        return record

    logging.setLogRecordFactory(marked)
