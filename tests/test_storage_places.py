import os
import time
from concurrent.futures import ThreadPoolExecutor

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import BUSY, LOST, TRUNCATE, Fault, FaultProxy

from fundus.errors import ConfigurationError
from fundus.storage.conditional import check_conditional_writes
from fundus.storage.places import open_place
from fundus.storage.retry import Retry


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def place(request, tmp_path):
    """A folder and an S3 prefix: each test runs with both."""
    if request.param == "folder":
        return open_place(str(tmp_path / "results"))
    return open_place(f"s3://{request.getfixturevalue('bucket')}/results/night")


def test_an_object_is_read_with_its_etag_until_it_is_deleted(place):
    assert place.read("runs/1.json") is None
    etag = place.put("runs/1.json", b"one")
    assert place.read("runs/1.json") == (b"one", etag)
    assert place.put("runs/1.json", b"two") != etag
    place.delete("runs/1.json")
    place.delete("runs/1.json")
    assert place.read("runs/1.json") is None


def test_the_first_writer_wins_and_the_second_is_told(place):
    etag = place.put_if_absent("claim", b"mine")
    assert place.put_if_absent("claim", b"yours") is None
    assert place.read("claim") == (b"mine", etag)
    assert place.put_if_absent("claim", b"mine") == etag, "its own content: it had won"


def test_one_of_many_writers_of_an_absent_name_wins(place):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: place.put_if_absent("claim", b"%d" % n), range(8)))
    (winner,) = [number for number, etag in enumerate(won) if etag]
    assert place.read("claim") == (b"%d" % winner, won[winner])


def test_an_object_is_replaced_only_by_a_writer_that_has_seen_it(place):
    first = place.put("current.json", b"1")
    second = place.put_if_match("current.json", b"2", first)
    assert second and place.read("current.json") == (b"2", second)
    assert place.put_if_match("current.json", b"3", first) is None
    assert place.put_if_match("absent.json", b"3", first) is None
    assert place.read("current.json") == (b"2", second)


def test_one_of_many_writers_that_have_seen_an_object_replaces_it(place):
    seen = place.put("current.json", b"old")
    with ThreadPoolExecutor(8) as pool:
        won = list(
            pool.map(lambda n: place.put_if_match("current.json", b"%d" % n, seen), range(8))
        )
    (winner,) = [number for number, etag in enumerate(won) if etag]
    assert place.read("current.json") == (b"%d" % winner, won[winner])


def test_names_below_a_prefix_are_listed_at_any_depth(place):
    for name in ("runs/b/rows/1.parquet", "runs/a/rows/1.parquet", "current.json"):
        place.put(name, b"1")
    place.put_if_absent("claims/1", b"1")
    assert place.list("runs/") == ["runs/a/rows/1.parquet", "runs/b/rows/1.parquet"]
    assert place.join("runs").list() == ["a/rows/1.parquet", "b/rows/1.parquet"]
    assert len(place.list()) == 4, "no lock and nothing unfinished among them"
    assert place.join("runs/a").uri == place.uri + "/runs/a"
    assert open_place(place.join("runs").uri).list() == place.join("runs").list()


def test_the_age_is_the_time_since_the_last_change(place):
    assert place.age_s("claim") is None
    place.put("claim", b"1")
    time.sleep(2.1)
    assert 1 <= place.age_s("claim") <= 5
    place.put("claim", b"1")
    assert place.age_s("claim") <= 1.5


def test_pyarrow_reaches_the_same_place(place):
    filesystem, path = place.arrow()
    filesystem.create_dir(f"{path}/rows", recursive=True)
    pq.write_table(pa.table({"vcdr": [0.5]}), f"{path}/rows/1.parquet", filesystem=filesystem)
    assert place.list() == ["rows/1.parquet"], "pyarrow's marks of folders are no objects"
    assert place.read("rows/1.parquet")[0].startswith(b"PAR1")


def test_a_name_that_leads_out_of_the_place_is_refused(place):
    for name in ("../secret", "/etc/passwd", "a/../../b", ""):
        with pytest.raises(ValueError, match="not a path below"):
            place.put(name, b"1")


@pytest.mark.s3
@pytest.mark.parametrize("how", ["absent", "match"])
def test_a_winner_whose_reply_was_lost_knows_that_it_won(s3, bucket, monkeypatch, how):
    direct = open_place(f"s3://{bucket}")
    seen = direct.put("current.json", b"old") if how == "match" else ""

    def put(place, data):
        if how == "match":
            return place.put_if_match("current.json", data, seen)
        return place.put_if_absent("current.json", data)

    with FaultProxy(s3.endpoint, Fault(LOST, "PUT")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        through = open_place(f"s3://{bucket}")
        assert put(through, b"mine, token 7") == through.read("current.json")[1]
        assert proxy.faults[LOST] == 1
        assert [method for method, _ in proxy.requests].count("PUT") == 2
        assert put(through, b"yours, token 8") is None


@pytest.mark.s3
def test_despite_all_faults_each_name_has_one_winner_that_knows_that_it_won(
    s3, bucket, monkeypatch
):
    with FaultProxy(s3.endpoint, seed=5, share=0.05, stall_s=5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("fundus.storage.places.PATIENT", Retry(first_s=0.02, stall_s=1))
        place = open_place(f"s3://{bucket}")
        tries = [
            (f"claims/{name}", b"token %d" % writer) for name in range(20) for writer in range(3)
        ]
        with ThreadPoolExecutor(6) as pool:
            etags = list(pool.map(lambda one: place.put_if_absent(*one), tries))
        won = {name: (data, etag) for (name, data), etag in zip(tries, etags, strict=True) if etag}
        assert sum(map(bool, etags)) == 20
        assert won == {name: place.read(name) for name in place.list()}
        assert proxy.faults[LOST] and proxy.faults.total() > 10


@pytest.mark.s3
def test_throttled_and_broken_requests_are_retried(s3, bucket, monkeypatch):
    plan = Fault(BUSY, "PUT", count=3), Fault(TRUNCATE, "GET", "current"), Fault(BUSY, "HEAD")
    with FaultProxy(s3.endpoint, *plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        place = open_place(f"s3://{bucket}")
        etag = place.put("current.json", b"x" * 10_000)
        assert place.read("current.json") == (b"x" * 10_000, etag)
        assert place.age_s("current.json") < 60
        assert proxy.faults == {BUSY: 4, TRUNCATE: 1}


def test_a_writer_that_dies_leaves_the_old_content(tmp_path, monkeypatch):
    place = open_place(str(tmp_path))
    etag = place.put("current.json", b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        place.put("current.json", b"new")
    assert place.read("current.json") == (b"old", etag) and place.list() == ["current.json"]


@pytest.mark.s3
def test_other_places_are_refused_and_secrets_are_not_repeated(tmp_path, s3):
    with pytest.raises(ValueError, match="gs://: give a folder or s3://"):
        open_place("gs://bucket/results")
    with pytest.raises(ValueError, match="the bucket does not exist"):
        open_place("s3://no-such-bucket/results")
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(ValueError, match="not a folder"):
        open_place(str(tmp_path / "file"))
    for uri in ("s3://AKIA:SECRET@bucket/x", "s3://b/x?secret_key=SECRET", "s3://AKIA:SEC/RET@b"):
        with pytest.raises(ValueError) as refused:
            open_place(uri)
        assert "SEC" not in str(refused.value) and "AKIA" not in str(refused.value)


def test_storage_that_honours_conditions_passes_and_no_probe_is_left(place):
    check_conditional_writes(place)
    assert place.list() == []


@pytest.mark.s3
@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_a_condition_is_refused(s3, bucket, monkeypatch, header):
    with FaultProxy(s3.endpoint, strip=(header, s3.key, s3.secret)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(ConfigurationError, match=f"does not honour {header},"):
            check_conditional_writes(open_place(f"s3://{bucket}/results"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)  # the proxy has stopped
    assert open_place(f"s3://{bucket}").list() == []


@pytest.mark.s3
def test_a_place_that_may_not_be_written_to_is_refused(s3, monkeypatch):
    for name, value in s3.stranger.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="access to it is denied"):
        check_conditional_writes(open_place("s3://public/results"))


@pytest.mark.s3
def test_a_bucket_that_demands_a_checksum_gets_one_from_every_client(s3, bucket, monkeypatch):
    """Object Lock demands one. deltalake sends SHA-256, pyarrow its default checksum."""
    demand = "content-md5:", "x-amz-checksum-", "x-amz-trailer: x-amz-checksum-"
    with FaultProxy(s3.endpoint, demand=demand) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
        place = open_place(f"s3://{bucket}/results")
        check_conditional_writes(place)
        place.put("current.json", b"1")
        table = pa.table({"vcdr": [0.5]})
        options = place.delta_options()
        deltalake.write_deltalake(f"{place.uri}/table", table, storage_options=options)
        assert {method for method, _ in proxy.requests} >= {"PUT"}
