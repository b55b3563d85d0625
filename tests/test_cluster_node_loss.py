"""A real screening on a real cluster that loses a node in the middle: every picture has its row, once."""

import re
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import clusters
import psutil
import pyarrow.parquet as pq
import pytest
from clusters import Head

from fundus.ledger import current
from fundus.storage.places import open_place
from fundus.synthetic import camera
from tests_support import archive_of  # noqa: F401
