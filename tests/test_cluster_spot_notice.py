"""AWS's notice reaches Ray: a stand-in for the metadata service, a real cluster, a real job."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import clusters
import pytest

from fundus.cluster import spot_notice
from fundus.cluster.spot_notice import ENDPOINT, notice


def in_two_minutes() -> datetime:
    """As AWS writes it, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=120)


@contextmanager
def metadata_service(
    taken_back: datetime | None = None, *, ip: str = "127.0.0.1", broken: Sequence[str] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Run a node's metadata service, version 2 only; yield its endpoint and the paths requested.

    The first notices are the `broken` ones.
    """
    requested = []
    answers = list(broken)

    class Service(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            requested.append(self.path)
            lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.reply(*((200, "secret") if lifetime else (400, "")))

        def do_GET(self) -> None:
            requested.append(self.path)
            if self.headers.get("X-aws-ec2-metadata-token") != "secret":
                self.reply(401, "")
            elif answers:
                self.reply(200, answers.pop(0))
            elif taken_back is None:
                self.reply(404, "")
            else:
                time = f"{taken_back:%Y-%m-%dT%H:%M:%SZ}"
                self.reply(200, json.dumps({"action": "terminate", "time": time}))

        def reply(self, code: int, body: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((ip, 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{ip}:{server.server_port}", requested
    server.shutdown()


def test_a_node_that_stays_has_no_notice() -> None:
    with metadata_service() as (endpoint, requested):
        assert notice(endpoint) is None
    assert requested == ["/latest/api/token", "/latest/meta-data/spot/instance-action"]


def test_the_notice_gives_the_time() -> None:
    when = in_two_minutes()
    with metadata_service(taken_back=when) as (endpoint, _):
        assert notice(endpoint) == when


def test_a_missing_service_is_an_error() -> None:
    with pytest.raises(OSError):
        notice("http://127.0.0.1:1")


def test_an_unreadable_answer_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that ended there would miss the notice."""
    drained = []
    monkeypatch.setattr(spot_notice, "drain", lambda *words: drained.append(words))
    when = in_two_minutes()
    broken = ["no json", "{}", "[]", '{"time": "soon"}']
    with metadata_service(when, broken=broken) as (endpoint, _):
        monkeypatch.setenv(ENDPOINT, endpoint)
        assert spot_notice.main(["--every", "0.01"]) == 0
    assert drained == [(when, None)]


GOING = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
draining = ray._private.state.state.get_draining_nodes()
going = [n for n in ray.nodes() if n["NodeID"] in draining or not n["Alive"]]
print(json.dumps([n["NodeManagerAddress"] for n in going]))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_the_watcher_of_a_host_drains_that_host() -> None:
    """The watcher runs without an id, as cluster.yaml starts it; another node stays.

    A drained node that is idle ends at once.
    """
    with (
        clusters.host() as host,
        clusters.head() as head,
        head.worker(cpus=1),
        head.worker(cpus=1, host=host) as taken,
    ):
        within = ["nsenter", "--mount", "--net", "--target", str(taken.pid)]
        watcher = [*within, sys.executable, "-m", "fundus.cluster.spot_notice"]
        gateway = host.ip.removesuffix("2") + "1"
        with metadata_service(in_two_minutes(), ip=gateway) as (endpoint, _):
            subprocess.run(watcher, env=head.env | {ENDPOINT: endpoint}, check=True, timeout=100)
        output, _ = head.driver(GOING).communicate(timeout=60)
    assert json.loads(output.splitlines()[-1]) == [host.ip], output


JOB = """
import json, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def picture(i):
    began = time.time()
    time.sleep(1)
    return i, ray.get_runtime_context().get_node_id(), began

def report(**facts):
    print(json.dumps(facts), flush=True)

while len([n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]) < 2:
    time.sleep(0.2)
pictures = [picture.remote(i) for i in range(12)]
report(nodes=sorted({node for _, node, _ in ray.get(pictures)}))
end = time.time() + 100
while not (draining := ray._private.state.state.get_draining_nodes()):
    # A drained node that is idle would end at once.
    pictures.append(picture.remote(len(pictures)))
    assert time.time() < end, "no node was drained"
    time.sleep(0.25)
report(draining=draining)
pictures += [picture.remote(len(pictures) + i) for i in range(8)]
since = time.time() + 2
done = ray.get(pictures)
whole = sorted(i for i, _, _ in done) == list(range(len(pictures)))
report(whole=whole, nodes=sorted({n for _, n, t in done if t > since}))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_node_under_notice_is_drained_and_the_job_goes_on_elsewhere() -> None:
    with clusters.head() as head, head.worker(cpus=2), head.worker(cpus=2):
        job = head.driver(JOB)
        assert job.stdout is not None
        reports = (json.loads(line) for line in job.stdout if line.startswith("{"))
        taken, other = next(reports)["nodes"]
        watcher = [sys.executable, "-m", "fundus.cluster.spot_notice", "--node-id", taken]
        when = in_two_minutes()
        with metadata_service(taken_back=when) as (endpoint, _):
            subprocess.run(watcher, env=head.env | {ENDPOINT: endpoint}, check=True, timeout=60)
        draining = next(reports)["draining"]
        end = next(reports)
        job.wait(30)
    assert list(draining) == [taken]
    left = when - datetime.fromtimestamp(draining[taken] / 1000, UTC)
    assert timedelta(0) < left < timedelta(seconds=30), "time left to write"
    assert end == {"whole": True, "nodes": [other]}
