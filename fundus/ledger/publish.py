"""From staged rows to current ones: reconciled, sorted, written as few files, and pointed to.

    rows/date=<day>/<run_id>-<word>-<number>.parquet    what the run screened
    rows/date=<day>/<run_id>-<word>-kept-<number>.parquet    older rows whose file had lost some

A row that a newer one supersedes leaves the current files; its own file stays where it was. The
word is that of the claim: a process that has lost its claim and does not know it yet writes beside
the files of the one that took it over, never into them.
"""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fundus.ledger import current as pointer
from fundus.ledger import row
from fundus.ledger.claim import Claim
from fundus.ledger.current import Current, File
from fundus.ledger.runs import IDS, Run, Staged, read_columns, whole
from fundus.storage.places import Place

FILE_BYTES = 128 << 20
"""About so much goes into one file: few enough files for a reader, small enough to rewrite."""
GROUP_ROWS = 4096
"""Rows that a reader can pass over at once by their lowest and highest URI."""


def reconcile(wanted: pa.Table, found: Staged) -> None:
    """Every object that was to be screened (uri, etag) has all its rows, or RuntimeError."""
    present = whole(found.ids)
    missing = _distinct(wanted).join(present, ["uri", "etag"], join_type="left anti")
    if missing.num_rows:
        raise RuntimeError(
            f"{missing.num_rows} of {wanted.num_rows} objects have no row: run the same command"
            " again, which does what is missing"
        )


def publish(
    place: Place,
    run: Run,
    current: Current,
    etag: str | None,
    wanted: pa.Table,
    found: Staged,
    claim: Claim,
) -> Current:
    """Write the run's rows for the wanted objects (uri, etag), and make them current.

    `etag` is that of `current` as it was read; ClaimHeld when another run has published since.
    """
    claim.check()
    name = f"rows/date={run.date}/{run.run_id}-{claim.holder.owner[:8]}"
    fresh = tuple(_write_fresh(place, run, name, wanted, found))
    kept = tuple(_without_superseded(place, name, current, fresh, wanted))
    following = current.with_run(run.run_id, (*kept, *fresh), claim.holder.owner)
    claim.check()
    if not pointer.swap(place, following, etag):
        claim.lost = True
        claim.check()
        raise RuntimeError(f"{place.uri}/{pointer.NAME} was changed by another run: run again")
    remove_leftovers(place, run, following)
    return following


def remove_leftovers(place: Place, run: Run, current: Current) -> None:
    """Delete files of rows that earlier attempts of this run wrote and never published.

    Only once the run is published: until then they may be another's who has taken it over.
    """
    known = {file.path for file in current.files}
    for name in place.list(f"rows/date={run.date}/{run.run_id}"):
        if name not in known:
            place.delete(name)


def _write_fresh(
    place: Place, run: Run, name: str, wanted: pa.Table, found: Staged
) -> Iterator[File]:
    """The run's rows in the order of their URIs, in files of about FILE_BYTES."""
    answers = whole(found.ids).join(_distinct(wanted), ["uri", "etag"], join_type="inner")
    ids = found.ids.join(answers, ["uri", "etag", "frames"], join_type="inner").sort_by("uri")
    if not ids.num_rows:
        return
    a_file = max(1, int(FILE_BYTES * found.ids.num_rows / max(found.bytes, 1)))
    uris = ids["uri"]
    start = number = 0
    while start < len(uris):
        last = uris[min(start + a_file, len(uris)) - 1]
        end = pc.sum(pc.less_equal(uris, last)).as_py()  # all pictures of an object in one file
        some = ids.slice(start, end - start)
        yield _write(place, run, f"{name}-{number:05d}", _gather(place, some, found))
        start, number = end, number + 1


def _gather(place: Place, ids: pa.Table, found: Staged) -> pa.Table:
    """The whole rows of these ids, each once, sorted."""
    files = [found.files[i] for i in sorted(set(ids["file"].to_pylist()))]
    parts = []
    for name in files:
        content = place.read(name)
        if content is None:
            raise RuntimeError(f"{name} is gone: run the same command again")
        rows = pq.read_table(io.BytesIO(content[0]))
        parts.append(rows.filter(pc.is_in(rows["uri"], pc.unique(ids["uri"]))))
    rows = pa.concat_tables(parts)
    numbered = rows.select(list(IDS)).append_column("at", pa.array(range(rows.num_rows)))
    first = numbered.group_by(list(IDS)).aggregate([("at", "min")])
    wanted = ids.group_by(list(IDS)).aggregate([])
    first = first.join(wanted, list(IDS), join_type="inner")
    return rows.take(first["at_min"]).sort_by([("uri", "ascending"), ("frame", "ascending")])


def _without_superseded(
    place: Place, name: str, current: Current, fresh: tuple[File, ...], wanted: pa.Table
) -> Iterator[File]:
    """The current files less the rows of objects that the run has screened anew."""
    if not fresh:
        yield from current.files
        return
    screened = pc.unique(wanted["uri"])
    lowest, highest = fresh[0].first, fresh[-1].last
    for number, file in enumerate(current.files):
        if file.last < lowest or highest < file.first:
            yield file
            continue
        stays = pc.invert(pc.is_in(read_columns(place, file.path, ["uri"])["uri"], screened))
        if pc.all(stays).as_py():
            yield file
        elif pc.any(stays).as_py():
            rows = read_columns(place, file.path, row.SCHEMA.names).filter(stays)
            older = Run(file.run_id, file.bundle, file.settings)
            yield _write(place, older, f"{name}-kept-{number:05d}", rows)


def _write(place: Place, run: Run, name: str, rows: pa.Table) -> File:
    path = f"{name}.parquet"
    rows = rows.cast(row.schema(run.run_id, run.bundle))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=GROUP_ROWS)
    content = sink.getvalue().to_pybytes()
    place.put(path, content)
    return File(
        path,
        rows.num_rows,
        len(content),
        run.run_id,
        run.bundle,
        run.settings,
        rows["uri"][0].as_py(),
        rows["uri"][-1].as_py(),
    )


def _distinct(ids: pa.Table) -> pa.Table:
    return ids.select(["uri", "etag"]).group_by(["uri", "etag"]).aggregate([])
