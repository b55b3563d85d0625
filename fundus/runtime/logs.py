"""Logs as JSON lines with the run's id, on a cluster: FUNDUS_LOG=json asks for them.

They go where Ray keeps the logs of every process, /tmp/ray/session_latest/logs on each node, with
Ray's ids of job, node, worker and task in each line. On a terminal Ray's own text stays.
"""

import logging
import os
from typing import Any

import ray

RUN_ID = "FUNDUS_RUN_ID"

TRAIN_LEAVES_THE_LOG = {
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
}
"""Else Ray Train puts handlers of its own, which print plain text, in the place of the job's."""


def ray_options() -> dict[str, Any]:
    """Arguments for `ray.init`; none unless FUNDUS_LOG is json."""
    if not _as_json():
        return {}
    mark_records()
    return {
        "logging_config": ray.LoggingConfig(
            encoding="JSON", additional_log_standard_attrs=["name"]
        ),
        "runtime_env": {"worker_process_setup_hook": "fundus.runtime.logs.mark_records"},
    }


def name_run(run_id: str) -> dict[str, str]:
    """Name the run in this process's records from now on; what a worker's environment must hold.

    Nothing unless FUNDUS_LOG is json.
    """
    if not _as_json():
        return {}
    named = {"FUNDUS_LOG": "json", RUN_ID: run_id} | TRAIN_LEAVES_THE_LOG
    os.environ.update(named)
    return named


def show() -> None:
    """Print the library's own log, plainly; for the first worker, so that lines come once.

    With FUNDUS_LOG=json it is Ray's to print, as the job's `ray.init` was told.
    """
    logger = logging.getLogger("fundus")
    logger.setLevel(logging.INFO)
    if _as_json():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False


def mark_records() -> None:
    """From now on every record of this process says the run, once it has a name."""
    plain = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        record.run_id = os.environ.get(RUN_ID)
        return record

    logging.setLogRecordFactory(marked)


def _as_json() -> bool:
    return os.environ.get("FUNDUS_LOG") == "json"
