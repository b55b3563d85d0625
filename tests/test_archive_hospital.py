"""The archive of the large runs: its listing contains exactly the objects that were put into it."""

import pytest
from dicom_files import SYNTAXES
from hospital import build

from fundus.archive.fetch import fetch_many
from fundus.archive.listing import walk
from fundus.storage.places import open_place


@pytest.mark.s3
def test_a_hospital_on_s3_is_listed_to_the_last_member(s3, bucket, fundus_data):
    hospital = build(open_place(f"s3://{bucket}/hospital"), fundus_data, count=400, seed=3)
    found = list(walk(hospital.uri))
    assert len(found) == 400 and {entry.uri for entry in found} == hospital.inventory
    assert sum("!/" in uri for uri in hospital.inventory) > 100
    assert all(hospital.kinds[syntax] for syntax in SYNTAXES) and len(SYNTAXES) >= 8
    unread = [
        number
        for number, data in fetch_many(found)
        if isinstance(data, Exception) and not found[number].status
    ]
    assert not unread, "an object that is broken inside is still read"


def test_the_same_seed_makes_the_same_bytes(tmp_path, fundus_data):
    places = [open_place(str(tmp_path / name)) for name in ("one", "two", "other")]
    for place, seed in zip(places, (1, 1, 2), strict=True):
        build(place, fundus_data, count=60, seed=seed)
    contents = [{name: place.read(name)[1] for name in place.list()} for place in places]
    assert contents[0] == contents[1] != contents[2]
