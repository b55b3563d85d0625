"""FUNDUS_LOG=json applies to training too; tests/test_cluster_jobs.py reads a real log."""

import logging
import os
from unittest import mock

from fundus.runtime import logs


def test_a_json_log_names_the_run_and_is_left_to_ray() -> None:
    library = logging.getLogger("fundus")
    handlers = list(library.handlers)
    with mock.patch.dict(os.environ, FUNDUS_LOG="json"):
        variables = logs.name_run("adapted-0123")
        assert os.environ[logs.RUN_ID] == "adapted-0123"
        logs.show()
    assert variables[logs.RUN_ID] == "adapted-0123" and variables["FUNDUS_LOG"] == "json"
    assert library.handlers == handlers and library.level == logging.INFO
    library.setLevel(logging.NOTSET)


def test_without_fundus_log_workers_get_no_variables() -> None:
    with mock.patch.dict(os.environ):
        os.environ.pop("FUNDUS_LOG", None)
        assert logs.name_run("adapted-0123") == {}
