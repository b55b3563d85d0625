"""Files of the table written anew with fewer rows, or with the risk of a newly calibrated bundle.

Nothing of it looks at a picture.
"""

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from fundus.anatomy.risk import RiskModel, log_odds, logistic
from fundus.ledger import runs, table
from fundus.ledger.runs import Run
from fundus.storage.places import Place

GROUP_ROWS = 4096
ATTEMPTS = 5
CLOSE_TO = 1e-9

Changed = Callable[[pa.RecordBatch, int], pa.RecordBatch]
"""A batch of a file's rows and the number of its first row -> what takes its place."""


def revised(place: Place, name: str, to: str, change: Changed) -> AddAction:
    """Write a changed copy of one of the table's files, some rows at a time; paths below it."""
    sink, start = io.BytesIO(), 0
    with table.files(place).open_input_file(name) as file:
        source = pq.ParquetFile(file)
        with pq.ParquetWriter(sink, source.schema_arrow, compression="zstd") as writer:
            for batch in source.iter_batches(GROUP_ROWS):
                writer.write_batch(change(batch, start))
                start += batch.num_rows
    place.put(f"{table.ROWS}/{to}", sink.getvalue())
    return table.action(to, sink.tell(), pq.read_metadata(sink))


def recalibrate(place: Place, run: Run, model: RiskModel | None) -> int:
    """Give rows that the same networks measured the risk of this run's bundle; files written anew.

    One transaction. Rows whose risk is the same already stay as they are, whatever bundle they
    name.
    """
    for _ in range(ATTEMPTS):
        rows = table.opened(place)
        names = sorted(_outdated(rows, run, model))
        if not names:
            return 0
        folder = f"{runs.new_run_id()}-risk"
        added = [
            revised(
                place,
                name,
                f"{folder}/{number:06}.parquet",
                lambda batch, _: _with_risk(batch, run, model),
            )
            for number, name in enumerate(names)
        ]
        if table.commit(place, rows, added, names):
            return len(names)
    raise RuntimeError(f"{place.uri} is changed by others all the time: run again later")


def _outdated(rows: "table.DeltaTable", run: Run, model: RiskModel | None) -> set[str]:
    """The files with a row of these networks, by another bundle, whose risk is another."""
    names: set[str] = set()
    others = (pc.field("measuring") == run.measuring) & (pc.field("bundle") != run.bundle)
    columns = ["vcdr", "vcdr_sd", "risk", "referable", "__filename"]
    for batch in table.stream(rows, columns, filter=others):
        risk, referable = _risks(batch, model)
        same = pc.and_(_same(batch["risk"], risk), _equal(batch["referable"], referable))
        names.update(pc.unique(batch["__filename"].filter(pc.invert(same))).to_pylist())
    return names


def _risks(batch: pa.RecordBatch, model: RiskModel | None) -> tuple[pa.Array, pa.Array]:
    """risk and referable of every row; null where the vCDR or its spread is."""
    if model is None:
        return pa.nulls(batch.num_rows, pa.float64()), pa.nulls(batch.num_rows, pa.bool_())
    vcdr, spread = (
        batch[name].fill_null(np.nan).to_numpy(zero_copy_only=False) for name in ("vcdr", "vcdr_sd")
    )
    given = (model.intercept, model.slope, model.vcdr_mean, model.vcdr_deviation)
    risk = logistic(log_odds(vcdr, spread, *given))
    unknown = np.isnan(risk)
    return pa.array(risk, mask=unknown), pa.array(risk >= model.threshold, mask=unknown)


def _with_risk(batch: pa.RecordBatch, run: Run, model: RiskModel | None) -> pa.RecordBatch:
    ours = pc.equal(batch["measuring"], run.measuring)
    risk, referable = _risks(batch, model)
    values = {"risk": risk, "referable": referable, "bundle": pa.scalar(run.bundle)}
    for name, value in values.items():
        at = batch.schema.get_field_index(name)
        column = pc.if_else(ours, value, batch[name]).cast(batch.schema.field(name).type)
        batch = batch.set_column(at, batch.schema.field(name), column)
    return batch


def _same(one: pa.Array, other: pa.Array) -> pa.Array:
    """Equal but for rounding; null equals null."""
    near = pc.less_equal(pc.abs(pc.subtract(one, other)), CLOSE_TO)
    return pc.or_(near.fill_null(False), pc.and_(one.is_null(), other.is_null()))


def _equal(one: pa.Array, other: pa.Array) -> pa.Array:
    return pc.or_(pc.equal(one, other).fill_null(False), pc.and_(one.is_null(), other.is_null()))
