"""Drain this node when AWS announces that it will take it back, which leaves two minutes to save.

    python -m fundus.cluster.spot_notice

cluster.yaml starts this beside Ray on every worker. A drained node gets no new work, and a training
run on it writes a checkpoint in time.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime

log = logging.getLogger(__name__)

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""AWS's variable for the address of the instance metadata service."""
MARGIN_S = 20
"""Seconds by which Ray's deadline precedes AWS's: Ray needs some of them to react, and the last
files some to be uploaded."""


def notice(endpoint: str) -> datetime | None:
    """Ask the metadata service when AWS takes this node back; None if no notice was given.

    Raises:
        OSError: the service does not answer.
        ValueError, KeyError, TypeError: the answer has another format than AWS's.
    """
    token = _answer(
        f"{endpoint}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
    )
    headers = {"X-aws-ec2-metadata-token": token or ""}
    found = _answer(f"{endpoint}/latest/meta-data/spot/instance-action", headers)
    return datetime.fromisoformat(json.loads(found)["time"]) if found else None


def drain(until: datetime, node_id: str | None) -> None:
    """Let Ray drain a node by its id, or this node if the id is None, before `until`."""
    left = max(0, int((until - datetime.now(UTC)).total_seconds()) - MARGIN_S)
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", f"AWS takes this spot node back at {until.isoformat()}"]
    command += ["--deadline-remaining-seconds", str(left)]
    command += ["--node-id", node_id] if node_id else []
    subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait for the notice and drain the node; 0 when it is drained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--node-id", help="Ray's id of the node; default: this node")
    parser.add_argument("--every", type=float, default=5, help="seconds between two requests")
    args = parser.parse_args(arguments)
    endpoint = os.environ.get(ENDPOINT, "http://169.254.169.254").rstrip("/")
    while True:
        try:
            if until := notice(endpoint):
                drain(until, args.node_id)
                return 0
        except OSError as error:
            log.warning("the metadata service does not answer: %s", error)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the metadata service's answer cannot be read, asking again: %r", error)
        except subprocess.CalledProcessError as error:
            log.warning("Ray did not drain the node (code %d): trying again", error.returncode)
        time.sleep(args.every)


def _answer(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The body of the answer; None for 404, which means that there is no notice."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


if __name__ == "__main__":
    sys.exit(main())
