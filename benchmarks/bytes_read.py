#!/usr/bin/env python
"""Count the bytes that a reader of results reads: for the measures alone, and for all columns.

python benchmarks/bytes_read.py results
"""

import argparse
import io
import sys
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from fundus.ledger import row, table
from fundus.storage.places import open_place

MEASURES = [name for name in row.SCHEMA.names if name != "mask_png"]


class Counting(io.RawIOBase):
    """A file that counts the bytes read from it."""

    def __init__(self, file: pa.NativeFile) -> None:
        super().__init__()
        self.file, self.count = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(None if size < 0 else size)
        self.count += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self.file.size()


def bytes_read(file: pa.NativeFile, columns: Sequence[str] | None) -> int:
    """Return how many bytes pyarrow reads from a file of rows for some columns (None: all)."""
    counting = Counting(file)
    pq.ParquetFile(counting, pre_buffer=False).read(columns=columns)
    return counting.count


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results")
    args = parser.parse_args(arguments)
    place = open_place(args.results)
    read = {"measures": 0, "everything": 0}
    files = pa.table(table.opened(place).get_add_actions(flatten=True)).to_pylist()
    for file in files:
        for name, columns in (("measures", MEASURES), ("everything", None)):
            with table.files(place).open_input_file(file["path"]) as opened:
                read[name] += bytes_read(opened, columns)
    rows = sum(file["num_records"] for file in files)
    size = sum(file["size_bytes"] for file in files)
    print(f"{rows} rows in {len(files)} files of {size} bytes")
    for name, count in read.items():
        print(f"{name:10}  {count:12} bytes read  {count / max(size, 1):6.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
