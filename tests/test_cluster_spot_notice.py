"""AWS's notice reaches Ray: a stand-in for the metadata service, a real cluster, a real job."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import clusters
import pytest

from fundus.cluster.spot_notice import ENDPOINT, notice


def in_two_minutes() -> datetime:
    """As AWS writes it, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=120)


@contextmanager
def metadata_service(taken_back: datetime | None = None) -> Iterator[tuple[str, list[str]]]:
    """A node's metadata service, version 2 alone, with what it was asked."""
    asked = []

    class Service(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.say(*((200, "secret") if lifetime else (400, "")))

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.headers.get("X-aws-ec2-metadata-token") != "secret":
                self.say(401, "")
            elif taken_back is None:
                self.say(404, "")
            else:
                time = f"{taken_back:%Y-%m-%dT%H:%M:%SZ}"
                self.say(200, json.dumps({"action": "terminate", "time": time}))

        def say(self, code: int, body: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_a_node_that_stays_has_no_notice() -> None:
    with metadata_service() as (endpoint, asked):
        assert notice(endpoint) is None
    assert asked == ["/latest/api/token", "/latest/meta-data/spot/instance-action"]


def test_the_notice_says_when() -> None:
    when = in_two_minutes()
    with metadata_service(taken_back=when) as (endpoint, _):
        assert notice(endpoint) == when


def test_no_service_at_all_is_a_fault_and_no_notice() -> None:
    with pytest.raises(OSError):
        notice("http://127.0.0.1:1")


JOB = """
import json, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def picture(i):
    began = time.time()
    time.sleep(1)
    return i, ray.get_runtime_context().get_node_id(), began

def say(**what):
    print(json.dumps(what), flush=True)

while len([n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]) < 2:
    time.sleep(0.2)
pictures = [picture.remote(i) for i in range(60)]
first, _ = ray.wait(pictures, num_returns=12)
say(nodes=sorted({node for _, node, _ in ray.get(first)}))
while not (draining := ray._private.state.state.get_draining_nodes()):
    time.sleep(0.05)
say(draining=draining)
since = time.time() + 2
done = ray.get(pictures)
say(done=sorted(i for i, _, _ in done), nodes=sorted({n for _, n, t in done if t > since}))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_node_under_notice_is_drained_and_the_job_goes_on_elsewhere() -> None:
    with clusters.head() as head, head.worker(cpus=2), head.worker(cpus=2):
        job = head.driver(JOB)
        assert job.stdout is not None
        said = (json.loads(line) for line in job.stdout if line.startswith("{"))
        taken, kept = next(said)["nodes"]
        watcher = [sys.executable, "-m", "fundus.cluster.spot_notice", "--node-id", taken]
        when = in_two_minutes()
        with metadata_service(taken_back=when) as (endpoint, _):
            subprocess.run(watcher, env=head.env | {ENDPOINT: endpoint}, check=True, timeout=60)
        draining = next(said)["draining"]
        end = next(said)
        job.wait(30)
    assert list(draining) == [taken]
    left = when - datetime.fromtimestamp(draining[taken] / 1000, UTC)
    assert timedelta(0) < left < timedelta(seconds=30), "time left to write"
    assert end == {"done": list(range(60)), "nodes": [kept]}
