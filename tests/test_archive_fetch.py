"""Fetching despite network and server faults: a real S3 server behind a fault proxy."""

import random
import threading
import time

import pytest
from fault_proxy import BUSY, RESET, RESET_BODY, STALL, TRUNCATE, Fault, FaultProxy
from s3_server import Server

from fundus.archive.entries import Entry
from fundus.archive.fetch import FetchFailed, Retry, fetch, fetch_many, retries
from fundus.archive.listing import walk
from fundus.storage import objects
from fundus.storage.places import open_place

pytestmark = pytest.mark.s3
QUICK = Retry(tries=5, first_s=0.02, longest_s=0.1, stall_s=0.5, deadline_s=20)
EYE = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def eye(s3, bucket):
    """The entry of one object of 3 MB."""
    s3.client.put_object(Bucket=bucket, Key="eye.jpg", Body=EYE)
    (entry,) = walk(f"s3://{bucket}")
    return entry


@pytest.fixture
def faults(s3, monkeypatch):
    """Puts a proxy with these faults between this test and the server."""
    proxies = []

    def plan(*faults, **chance):
        proxies.append(FaultProxy(s3.endpoint, *faults, **chance).__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxies[-1].endpoint)
        return proxies[-1]

    yield plan
    for proxy in proxies:
        proxy.__exit__()


def reason(entry, retry=QUICK):
    with pytest.raises(FetchFailed) as failed:
        fetch(entry.uri, entry.etag, retry=retry)
    return failed.value.status, failed.value.reason


@pytest.mark.parametrize("kind", [BUSY, RESET, RESET_BODY, TRUNCATE, STALL])
def test_each_kind_of_fault_is_retried(eye, faults, kind):
    before = retries()
    faults(Fault(kind, "GET", count=3), stall_s=5)
    assert fetch(eye.uri, eye.etag, retry=QUICK) == EYE
    assert retries() == before + 3


def test_a_broken_body_is_resumed_where_it_broke(eye, faults, monkeypatch):
    proxy = faults(Fault(TRUNCATE, "GET", count=4))
    requests = []
    once = objects.s3.once
    monkeypatch.setattr(objects.s3, "once", lambda *a, **kw: requests.append(kw) or once(*a, **kw))
    assert fetch(eye.uri, eye.etag, retry=QUICK) == EYE
    assert proxy.faults[TRUNCATE] == 4
    starts = [int(kw.get("Range", "bytes=0-")[6:-1]) for kw in requests]
    assert starts == sorted(set(starts)) and starts[1] > 1_000_000, "never from the beginning"
    assert {kw["IfMatch"] for kw in requests} == {f'"{eye.etag}"'}


@pytest.mark.parametrize("answered", [None, "bytes=7-", "bytes=0-1999999", "bytes=500000-1500000"])
def test_a_reply_with_other_bytes_than_requested_is_refused(eye, faults, monkeypatch, answered):
    """Whole bodies, or other parts than the missing one, would give a corrupt picture."""
    once = objects.s3.once
    faults(Fault(TRUNCATE, "GET"))

    def with_another_range(*args, Range=None, **others):
        replaced = {"Range": answered} if Range and answered else {}
        return once(*args, **others, **replaced)

    monkeypatch.setattr(objects.s3, "once", with_another_range)
    refusal = ("read_failed", "the storage sends other bytes than were asked for")
    assert reason(eye) == refusal
    with pytest.raises(FetchFailed, match=refusal[1]):
        objects.read(eye.uri, eye.etag, 500_000, 1_000_000, QUICK)


def test_a_changed_object_is_never_joined_from_two_versions(s3, bucket, eye, faults):
    proxy = faults(Fault(STALL, "GET", "eye.jpg"), stall_s=5)

    def change():
        while not proxy.faults[STALL]:
            time.sleep(0.01)
        s3.client.put_object(Bucket=bucket, Key="eye.jpg", Body=EYE[::-1])

    writer = threading.Thread(target=change)
    writer.start()
    assert reason(eye) == ("read_failed", "it changed after it was listed (PreconditionFailed)")
    writer.join()


def test_the_next_try_waits_for_as_long_as_the_server_demands(eye, faults):
    faults(Fault(BUSY, "GET", retry_after_s=1))
    start = time.monotonic()
    assert fetch(eye.uri, eye.etag, retry=QUICK) == EYE
    assert time.monotonic() - start > 1


def test_fetching_gives_up_after_its_tries_or_its_deadline(eye, faults):
    proxy = faults(Fault(BUSY, "GET", count=99))
    assert reason(eye) == ("read_failed", "the storage is busy or at fault (503 SlowDown)")
    assert proxy.faults[BUSY] == QUICK.tries
    start = time.monotonic()
    reason(eye, Retry(tries=99, first_s=0.05, longest_s=0.2, deadline_s=1))
    assert time.monotonic() - start < 3


def test_a_killed_server_is_waited_for_until_it_restarts(tmp_path, monkeypatch):
    with Server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        archive = f"s3://{server.bucket()}/eyes"
        place = open_place(archive)
        etag = place.put("eye.jpg", EYE)
        reads = (
            lambda: fetch(f"{archive}/eye.jpg", etag) == EYE,
            lambda: [entry.uri for entry in walk(archive)] == [f"{archive}/eye.jpg"],
        )
        for read in reads:
            server.kill()
            restart = threading.Timer(1, server.start)
            restart.start()
            assert read()
            restart.join()
        server.kill()
        monkeypatch.setattr("fundus.storage.places.PATIENT", QUICK)
        for read in (lambda: walk(archive, retry=QUICK), lambda: open_place(archive)):
            with pytest.raises(ValueError, match="the connection to the storage failed"):
                read()


def test_permanent_failures_are_not_retried(s3, bucket, eye, faults, monkeypatch):
    proxy = faults()
    s3.client.delete_object(Bucket=bucket, Key="eye.jpg")
    assert reason(eye) == ("read_failed", "it is not there (NoSuchKey)")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, s3.stranger[name])
    assert reason(eye) == ("read_failed", "access to it is denied (AccessDenied)")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert reason(eye) == ("read_failed", "no AWS credentials were found")
    assert len(proxy.requests) == 2


def test_an_object_above_the_size_limit_is_refused_unread(eye, monkeypatch):
    monkeypatch.setattr(objects, "MAX_BYTES", 1_000_000)
    assert reason(eye) == ("too_large", "too many bytes (3000000; at most 1000000)")


def test_many_objects_come_in_order_and_few_are_in_flight(s3, bucket, monkeypatch):
    for number in range(30):
        s3.client.put_object(Bucket=bucket, Key=f"{number:02}.jpg", Body=b"%d" % number)
    entries = sorted(walk(f"s3://{bucket}"), key=lambda entry: entry.uri)
    entries[5] = Entry(f"s3://{bucket}/gone.jpg", "0", 1)
    entries[7] = Entry(f"s3://{bucket}/link.jpg", "link", 0, "unsupported", "a link")
    in_flight, counts, lock = set(), [], threading.Lock()
    once = objects.s3.once

    def watched(*args, **request):
        with lock:
            in_flight.add(request["Key"])
            counts.append(len(in_flight))
        time.sleep(random.Random(request["Key"]).random() / 50)
        try:
            return once(*args, **request)
        finally:
            in_flight.discard(request["Key"])

    monkeypatch.setattr(objects.s3, "once", watched)
    found = dict(fetch_many(entries, at_once=4))
    assert list(found) == list(range(30)) and 2 <= max(counts) <= 4
    assert found[5].status == "read_failed" and found[7].reason == "a link"
    sound = set(range(30)) - {5, 7}
    assert {n: found[n] for n in sound} == {n: b"%d" % n for n in sound}


def test_objects_after_a_slow_one_are_fetched_in_the_meantime(tmp_path, monkeypatch):
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_bytes(b"%d" % number)
    together = threading.Barrier(8)

    def slow_first(uri, etag, retry):
        if int(uri[-6:-4]) < 8:
            together.wait(20)  # raises unless eight wait at once
        return uri.encode()

    monkeypatch.setattr("fundus.archive.fetch.fetch", slow_first)
    many = list(fetch_many(list(walk(str(tmp_path))), at_once=8))
    assert [number for number, _ in many] == list(range(20))
    assert all(b"%02d.jpg" % number in uri for number, uri in many)


def test_large_objects_are_held_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("fundus.archive.fetch.IN_FLIGHT", 1_500)
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(1_000))
    started = []
    monkeypatch.setattr(
        "fundus.archive.fetch.fetch", lambda uri, etag, retry: started.append(uri) or b""
    )
    many = fetch_many(list(walk(str(tmp_path))), at_once=8)
    next(many)
    time.sleep(0.1)
    assert len(started) <= 2
    many.close()


def test_all_bytes_are_right_despite_faults_of_every_kind(s3, bucket, faults):
    sent = {f"{n}.jpg": random.Random(n).randbytes(1 << (n % 20)) for n in range(150)}
    for key, data in sent.items():
        s3.client.put_object(Bucket=bucket, Key=key, Body=data)
    entries = list(walk(f"s3://{bucket}"))
    proxy = faults(seed=7, share=0.05, stall_s=5)
    patient = Retry(tries=12, first_s=0.02, longest_s=0.1, stall_s=2, deadline_s=60)
    for number, data in fetch_many(entries, retry=patient):
        assert data == sent[entries[number].uri.rsplit("/", 1)[1]]
    assert len(proxy.faults) == 6 and proxy.faults.total() > 30
