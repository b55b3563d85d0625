import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError
from s3_server import PUBLIC, Server

pytestmark = pytest.mark.s3


def code(error):
    return error.value.response["Error"]["Code"]


def test_clients_find_the_server_by_the_environment_alone(s3, bucket):
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket=bucket, Key="a b/ü.jpg", Body=b"eye")
    assert client.get_object(Bucket=bucket, Key="a b/ü.jpg")["Body"].read() == b"eye"
    assert os.environ["AWS_ENDPOINT_URL"] == s3.endpoint


def test_one_of_many_conditional_writers_wins(s3, bucket):
    def claim(number):
        try:
            s3.client.put_object(Bucket=bucket, Key="claim", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(8))) == ["PreconditionFailed"] * 7 + ["won"]


def test_a_stranger_reads_the_public_bucket_and_no_other(s3, bucket):
    s3.client.put_object(Bucket=bucket, Key="eye.jpg", Body=b"eye")
    keys = {"aws_access_key_id": s3.stranger_key, "aws_secret_access_key": s3.stranger_secret}
    stranger = boto3.session.Session().client("s3", endpoint_url=s3.endpoint, **keys)
    assert stranger.get_object(Bucket=PUBLIC, Key="ready")["Body"].read() == b"ready"
    with pytest.raises(ClientError) as refused:
        stranger.get_object(Bucket=bucket, Key="eye.jpg")
    assert code(refused) == "AccessDenied"


def test_acknowledged_objects_outlive_a_kill(tmp_path):
    server = Server(tmp_path)
    with server:
        bucket = server.bucket()
        for number in range(50):
            server.client.put_object(Bucket=bucket, Key=f"{number}.jpg", Body=b"%d" % number)
        server.kill()
        server.start()
        listed = server.client.list_objects_v2(Bucket=bucket)["Contents"]
        assert {item["Key"] for item in listed} == {f"{number}.jpg" for number in range(50)}
        assert server.client.get_object(Bucket=bucket, Key="7.jpg")["Body"].read() == b"7"
