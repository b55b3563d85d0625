"""One configuration of a hospital's CA and proxy serves boto3, pyarrow and deltalake."""

import os

import deltalake
import pyarrow as pa
import pytest
from hospital_network import HospitalNetwork
from s3_server import AWS_HOSTS

from fundus.archive.listing import walk
from fundus.errors import ConfigurationError
from fundus.storage.connection import connection
from fundus.storage.places import open_place

pytestmark = pytest.mark.s3
OWN_HOST = "s3.hospital.example"
PRIVATE_LINK = "bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def network(s3, tmp_path_factory):
    names = [OWN_HOST, PRIVATE_LINK, *AWS_HOSTS, *(f"*.{host}" for host in AWS_HOSTS)]
    with HospitalNetwork(s3.endpoint, tmp_path_factory.mktemp("network"), *names) as network:
        yield network


@pytest.fixture
def configure(network, monkeypatch):
    """Sets the environment of a hospital's machine: its CA, its proxy, and no endpoint."""
    for name in ("REQUESTS_CA_BUNDLE", "AWS_ENDPOINT_URL", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def set_variables(**environment):
        usual = {"AWS_CA_BUNDLE": str(network.ca), "HTTPS_PROXY": network.proxy}
        for name, value in (usual | environment).items():
            monkeypatch.setenv(name, value)
        network.asked.clear()

    return set_variables


def use_all(bucket):
    """Each of the three clients writes to and reads from the same location."""
    place = open_place(f"s3://{bucket}/results")
    place.put("by-boto3", b"eye")
    filesystem, folder = place.arrow()
    with filesystem.open_output_stream(f"{folder}/by-pyarrow") as out:
        out.write(b"eye")
    table = f"{place.uri}/table"
    options = place.delta_options()
    deltalake.write_deltalake(table, pa.table({"vcdr": [0.5]}), storage_options=options)
    assert deltalake.DeltaTable(table, storage_options=options).version() == 0
    assert place.read("by-pyarrow")[0] == filesystem.open_input_file(f"{folder}/by-boto3").read()
    assert len(list(walk(place.uri))) >= 4


@pytest.mark.parametrize(
    "environment, host",
    [
        ({"AWS_ENDPOINT_URL_S3": f"https://{OWN_HOST}"}, OWN_HOST),
        ({"AWS_ENDPOINT_URL": f"https://{OWN_HOST}"}, OWN_HOST),
        ({"AWS_ENDPOINT_URL_S3": f"https://{PRIVATE_LINK}"}, PRIVATE_LINK),
        ({"AWS_DEFAULT_REGION": "eu-central-1"}, "{bucket}." + AWS_HOSTS[0]),
        (
            {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "{bucket}." + AWS_HOSTS[1],
        ),
        (
            {"AWS_DEFAULT_REGION": "us-gov-west-1", "AWS_USE_FIPS_ENDPOINT": "true"},
            "{bucket}." + AWS_HOSTS[2],
        ),
    ],
    ids=["own server", "every service's", "PrivateLink", "AWS", "dualstack", "FIPS"],
)
def test_every_client_asks_the_same_host_through_the_proxy(
    network, configure, bucket, environment, host
):
    configure(**environment)
    use_all(bucket)
    assert set(network.asked) == {host.format(bucket=bucket)}


def test_a_profile_may_replace_the_variables(network, configure, bucket, tmp_path, s3, monkeypatch):
    (tmp_path / "config").write_text(
        f"[profile clinic]\nregion = eu-central-1\nca_bundle = {network.ca}\nservices = here\n"
        f"aws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
        f"[services here]\ns3 =\n  endpoint_url = https://{OWN_HOST}\n"
    )
    configure(AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="clinic")
    for name in ("AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    use_all(bucket)
    assert set(network.asked) == {OWN_HOST}


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_no_client_uses_a_proxy_for_a_host_in_no_proxy(network, configure, bucket, name):
    nobody = "http://127.0.0.1:9"
    proxies = {"HTTPS_PROXY": "", name: nobody, "NO_PROXY": "127.0.0.1"}
    configure(AWS_ENDPOINT_URL=network.endpoint, **proxies)
    use_all(bucket)
    assert not network.asked


def test_what_is_missing_is_reported_before_any_request(configure, bucket, tmp_path, monkeypatch):
    configure(AWS_CA_BUNDLE=str(tmp_path / "gone.pem"))
    with pytest.raises(ConfigurationError, match=r"CA bundle .*gone\.pem is not there"):
        open_place(f"s3://{bucket}")
    configure()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigurationError, match="no AWS credentials were found"):
        open_place(f"s3://{bucket}").arrow()


def test_secrets_are_not_in_the_repr(configure, bucket, s3):
    configure(AWS_ENDPOINT_URL=f"https://{OWN_HOST}")
    found = connection(bucket)
    assert s3.secret in found.delta().values() and s3.secret not in repr(found)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in repr(found)
