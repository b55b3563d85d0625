"""The two stages in which an archive is measured. Each passes only small data to the next.

A decoded frame of 12 megapixels is 36 MB, and the 32 maps of one eye are 4 MB. Neither leaves its
process: the reading stage passes on crops, and the measuring stage passes on rows. Without GPUs
both stages share their processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import pyarrow as pa
import ray
from ray import ObjectRef

from fundus.models.bundle import Bundle
from fundus.models.engine import threads
from fundus.models.predictor import Predictor, ready
from fundus.models.turns import Profile
from fundus.screening import light
from fundus.screening.attempts import Watched
from fundus.screening.columns import Batch
from fundus.screening.models import Locate, Segment
from fundus.screening.reading import Read

CROPS_PER_BATCH = 8
"""Eyes whose maps are in memory at once in one process."""


@dataclass(frozen=True)
class Networks:
    """A bundle's networks in Ray's object store, in the form that each stage loads."""

    reading: ObjectRef
    """For CPUs: the detector, and the first segmenter for disc crops."""
    measuring: ObjectRef
    """For GPUs if there are any, else for CPUs."""


def share(bundle: Bundle, profile: Profile, *, gpu: bool) -> Networks:
    """Put the networks into Ray's object store; with `gpu`, measuring runs on GPUs."""
    reading = ray.put(ready(bundle, gpu=False, profile=profile))
    if not gpu:
        return Networks(reading, reading)
    return Networks(reading, ray.put(ready(bundle, gpu=True, profile=profile)))


class Crops:
    """Objects -> their pictures, each with the crop around its disc."""

    def __init__(
        self,
        networks: ObjectRef,
        attempts: Any,
        read: Callable[[], Read],
        locate: Callable[[Predictor], Locate],
    ) -> None:
        predictor = _predictor(networks)
        self.read, self.locate = read(), Watched(attempts, "Locate", locate(predictor))
        self.side = predictor.side

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Pass on a few crops at a time, while others of the batch are fetched."""
        for pictures in self.read(batch):
            yield light.crop(self.locate(pictures), side=self.side)


class Rows:
    """Crops -> rows of `fundus.ledger.row.SCHEMA`."""

    def __init__(
        self,
        networks: ObjectRef,
        attempts: Any,
        segment: Callable[[Predictor], Segment],
        measure: light.Measure,
    ) -> None:
        self.segment = Watched(attempts, "Segment", segment(_predictor(networks)))
        self.measure = measure

    def __call__(self, batch: Batch) -> pa.Table:
        return self.measure(self.segment(batch))


class CropsAndRows:
    """Objects -> rows: both stages in one process."""

    def __init__(self, crops: Callable[[], Crops], rows: Callable[[], Rows]) -> None:
        self.crops, self.rows = crops(), rows()

    def __call__(self, batch: Batch) -> Iterator[pa.Table]:
        """Measure a few crops at a time, while others of the batch are fetched."""
        for crops in self.crops(batch):
            for start in range(0, len(crops["uri"]), CROPS_PER_BATCH):
                few = slice(start, start + CROPS_PER_BATCH)
                yield self.rows({name: values[few] for name, values in crops.items()})


@cache
def _predictor(networks: ObjectRef) -> Predictor:
    """The networks of this process, loaded once; OpenCV gets as many threads as they do.

    By itself OpenCV starts a thread per core of the machine in each process.
    """
    cv2.setNumThreads(threads())
    return Predictor(ray.get(networks))
