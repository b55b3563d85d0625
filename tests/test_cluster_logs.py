"""deploy/aws/keep_logs.sh against a real S3 server, as a node runs it."""

import os
import shutil
import subprocess
from pathlib import Path

import clusters
import pytest
from s3_server import Server

SCRIPT = clusters.ROOT / "deploy/aws/keep_logs.sh"


@pytest.mark.s3
@pytest.mark.skipif(not shutil.which("aws"), reason="the AWS command line is not installed")
def test_growing_logs_are_copied_again_and_one_copier_runs_per_node(
    s3: Server, bucket: str, tmp_path: Path
) -> None:
    session = tmp_path / "session_2027"
    session.mkdir()
    (session / "raylet.out").write_text("started\n")
    latest = tmp_path / "latest"
    latest.symlink_to(session)
    env = os.environ | s3.environment
    env |= {"TMPDIR": str(tmp_path), "RAY_LOGS": str(latest), "KEEP_LOGS_EVERY": "1"}
    command = [str(SCRIPT), f"s3://{bucket}/logs"]

    def copies() -> dict[str, bytes]:
        found = s3.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        names = [one["Key"] for one in found]
        return {key: s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in names}

    name = f"logs/{os.uname().nodename}/raylet.out"
    first = subprocess.Popen(command, env=env, start_new_session=True)
    try:
        clusters.wait(lambda: copies() == {name: b"started\n"}, 100, "the first copy")
        subprocess.run(command, env=env, check=True, timeout=30)  # the second ends at once
        assert first.poll() is None
        (session / "raylet.out").write_text("started\nand went on\n")
        grown = {name: b"started\nand went on\n"}
        clusters.wait(lambda: copies() == grown, 100, "the second copy")
    finally:
        os.killpg(first.pid, 9)
