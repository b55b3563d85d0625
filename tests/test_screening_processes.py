"""The stages in one process: few eyes at a time, and no more threads than Ray gives."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from test_screening_pipeline import tiny_bundle

from fundus.screening import stages
from fundus.screening.columns import Batch
from fundus.screening.stages import CROPS_PER_BATCH, CropsAndRows


def test_one_process_measures_few_of_the_eyes_that_it_reads_at_a_time() -> None:
    """The maps of one eye take 4 MB, and one DICOM object may hold a hundred frames."""
    read = [np.arange(2 * CROPS_PER_BATCH + 1), np.arange(2)]

    def crops(batch: Batch) -> Iterator[Batch]:
        yield from ({"uri": some, "crop": -some} for some in read)

    both = CropsAndRows(lambda: crops, lambda: lambda batch: batch)  # type: ignore[arg-type,return-value]
    measured = list(both({}))
    assert [len(one["uri"]) for one in measured] == [CROPS_PER_BATCH, CROPS_PER_BATCH, 1, 2]
    assert (
        np.concatenate([one["crop"] for one in measured]).tolist()
        == (-np.concatenate(read)).tolist()
    )


def test_opencv_gets_the_threads_that_ray_gives(
    ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it starts a thread per core of the machine in every actor."""
    before = cv2.getNumThreads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    networks = stages.share(tiny_bundle(), "exact", gpu=False)
    try:
        assert stages._predictor(networks.reading) is stages._predictor(networks.measuring)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
        stages._predictor.cache_clear()
