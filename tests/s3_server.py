"""A real S3 server for the tests: SeaweedFS in one process, on free ports and in its own folder.

    with Server(folder) as server:
        server.bucket()

Clients find it by the standard AWS variables alone: `Server.environment`.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import boto3
import botocore.exceptions
from botocore.config import Config

READY_S = 60
PUBLIC = "public"
"""A bucket that always exists; the identity `stranger` may read it and no other."""

AWS_HOSTS = (
    "s3.eu-central-1.amazonaws.com",
    "s3.dualstack.eu-central-1.amazonaws.com",
    "s3-fips.us-gov-west-1.amazonaws.com",
    "s3-fips.dualstack.us-gov-west-1.amazonaws.com",
)


class Server:
    """SeaweedFS on this machine. `kill` and `start` keep its ports and objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(5)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.key, self.secret = secrets.token_hex(10), secrets.token_hex(20)
        self.stranger_key, self.stranger_secret = secrets.token_hex(10), secrets.token_hex(20)
        self.process: subprocess.Popen | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a client reaches this server, and no other."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            # pyarrow's uploads get 411 from older servers otherwise.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    @property
    def stranger(self) -> dict[str, str]:
        """The environment of a client that may read the bucket `PUBLIC` and no other."""
        return self.environment | {
            "AWS_ACCESS_KEY_ID": self.stranger_key,
            "AWS_SECRET_ACCESS_KEY": self.stranger_secret,
        }

    def start(self) -> None:
        """Start the server, and wait until it has accepted an object."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps(self._identities()))
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                env=self._own_environment(),
                stdout=log,
                stderr=log,
            )
        self._wait()

    def kill(self) -> None:
        """Kill with SIGKILL: acknowledged objects are on the disk, the rest is lost."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @cached_property
    def client(self):
        """A boto3 client that connects directly to the server, whatever the environment says."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=30),
        )

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def _own_environment(self) -> dict[str, str]:
        """Leave out its clients' credentials: it would take them for its administrator's."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return own | {"TMPDIR": str(self.folder), "GOMEMLIMIT": "300MiB"}

    def _command(self) -> list[str]:
        s3, filer, master, volume, admin = self.ports
        weed = Path(sys.executable).with_name("weed")
        flags = {
            "dir": self.folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            "s3.config": self.folder / "s3.json",
            "s3.port": s3,
            "filer.port": filer,
            "master.port": master,
            "volume.port": volume,
            "admin.port": admin,
            # Host names of AWS that this server answers to, also after the name of a bucket.
            "s3.domainName": ",".join(AWS_HOSTS),
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self.folder / "s3.sock",
            "idleTimeout": 5,
            # Each test's bucket takes a volume or two. A long test run used up the default, which
            # is one volume per free gigabyte of the disk.
            "volume.max": 1000,
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
        }
        return [str(weed), "mini", *(f"-{name}={value}" for name, value in flags.items())]

    def _identities(self) -> dict:
        def identity(name: str, key: str, secret: str, actions: list[str]) -> dict:
            credentials = [{"accessKey": key, "secretKey": secret}]
            return {"name": name, "credentials": credentials, "actions": actions}

        everything = ["Admin", "Read", "Write", "List", "Tagging"]
        public_only = [f"Read:{PUBLIC}", f"List:{PUBLIC}"]
        return {
            "identities": [
                identity("owner", self.key, self.secret, everything),
                identity("stranger", self.stranger_key, self.stranger_secret, public_only),
            ]
        }

    def _wait(self) -> None:
        assert self.process
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.client.create_bucket(Bucket=PUBLIC)
                self.client.put_object(Bucket=PUBLIC, Key="ready", Body=b"ready")
                return
            except botocore.exceptions.ClientError as error:
                if error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                    self.client.put_object(Bucket=PUBLIC, Key="ready", Body=b"ready")
                    return
                failure: Exception = error
            except botocore.exceptions.BotoCoreError as error:
                failure = error
            log = (self.folder / "weed.log").read_text(errors="replace")[-2000:]
            if self.process.poll() is not None:
                raise RuntimeError(f"weed ended with {self.process.returncode}: {log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"weed is not ready after {READY_S} s ({failure}): {log}")
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Free ports whose twins 10,000 above (gRPC) are free too.

    All lie below the ephemeral range (32768 and up on Linux): no client takes one before a restart.
    """
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(12_000)
        if port not in found and is_free(port) and is_free(port + 10_000):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
