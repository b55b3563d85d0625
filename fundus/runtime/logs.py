"""Logs as JSON lines with the run's id, for clusters, if FUNDUS_LOG is json.

Ray writes them with the logs of every process, to /tmp/ray/session_latest/logs on each node. Each
line has Ray's ids of job, node, worker and task. Without FUNDUS_LOG logs are plain text.
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
"""Otherwise Ray Train replaces the job's handlers by its own, which print plain text."""


def ray_options() -> dict[str, Any]:
    """Logging arguments for `ray.init`; none unless FUNDUS_LOG is json."""
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
    """Add the run's id to all later log records of this process; nothing unless FUNDUS_LOG is json.

    Returns:
        The environment variables that workers need for the same.
    """
    if not _as_json():
        return {}
    named = {"FUNDUS_LOG": "json", RUN_ID: run_id} | TRAIN_LEAVES_THE_LOG
    os.environ.update(named)
    return named


def show() -> None:
    """Print the library's log as plain text. Only the first worker does, so that lines come once.

    With FUNDUS_LOG=json Ray prints it, by the arguments of the job's `ray.init`.
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
    """Add the run's id, once it is known, to all later log records of this process."""
    plain = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        record.run_id = os.environ.get(RUN_ID)
        return record

    logging.setLogRecordFactory(marked)


def _as_json() -> bool:
    return os.environ.get("FUNDUS_LOG") == "json"
