"""One configuration of S3 for all clients: boto3's settings are passed to pyarrow and deltalake.

boto3 reads the standard environment variables, files and profile: endpoint (a private server,
PrivateLink, FIPS, dualstack), region, CA bundle, proxy, credentials. The other two clients read
some of these in ways of their own. Left alone, they would reach another server than boto3, or none.
"""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import botocore.exceptions as failures
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies
from pyarrow import fs

from fundus.errors import ConfigurationError
from fundus.storage import s3
from fundus.storage.retry import PATIENT

NO_PROXY = "http://127.0.0.1:9"
"""A proxy that no host uses. Without any proxy, object_store would take one of the environment."""
GLOBAL = "s3.amazonaws.com"
OWN_CHAIN = {"iam-role", "container-role", "assume-role-with-web-identity", "sso", "custom-process"}
"""Temporary credentials, by botocore's names, that pyarrow's own chain finds and renews."""


@dataclass(frozen=True)
class Connection:
    """How this process reaches one bucket, with its present credentials."""

    bucket: str
    endpoint: str
    """URL of the server, without the bucket."""
    virtual: bool
    """Whether the bucket is part of the host name (before the endpoint's) and not of the path."""
    region: str
    ca: str | None
    """File of trusted certificates; None for the system's."""
    proxy: str | None
    """URL of the proxy for the endpoint; None if there is none."""
    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(repr=False)
    renewable: bool
    """Whether pyarrow finds the same credentials by itself and renews them when they expire."""

    def arrow(self) -> fs.S3FileSystem:
        """pyarrow's file system. It renews the credentials if it can; else it expires with them."""
        server = urlsplit(self.endpoint)
        own = {"access_key": self.key, "secret_key": self.secret, "session_token": self.token}
        return fs.S3FileSystem(
            **({} if self.renewable else own),
            region=self.region,
            scheme=server.scheme,
            endpoint_override=server.netloc + server.path,
            force_virtual_addressing=self.virtual,
            tls_ca_file_path=self.ca,
            proxy_options=_parts(self.proxy) if self.proxy else None,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=PATIENT.tries),
        )

    def delta(self) -> dict[str, str]:
        """deltalake's `storage_options`: each commit is conditional, each PUT has a checksum."""
        server = urlsplit(self.endpoint)
        host = f"{self.bucket}.{server.netloc}" if self.virtual else server.netloc
        options = {
            "aws_endpoint_url": server._replace(netloc=host).geturl(),
            "aws_virtual_hosted_style_request": str(self.virtual).lower(),
            "aws_region": self.region,
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "aws_allow_http": str(server.scheme == "http").lower(),
            "aws_conditional_put": "etag",
            # A bucket with Object Lock refuses a PUT without one; older servers ignore it.
            "aws_checksum_algorithm": "sha256",
            "proxy_url": self.proxy or NO_PROXY,
        }
        if not self.proxy:
            options["proxy_excludes"] = urlsplit(f"//{host}").hostname or ""
        if self.token:
            options["aws_session_token"] = self.token
        if self.ca:
            options["certificate_path"] = self.ca
        return options


def connection(bucket: str) -> Connection:
    """Find out how boto3 reaches a bucket now.

    Temporary credentials expire after some hours: call this again for each piece of work.

    Raises:
        ConfigurationError: boto3 finds no credentials.
    """
    client, session = s3.client(), s3.session()
    try:
        credentials = session.get_credentials()
        frozen = credentials and credentials.get_frozen_credentials()
        if not frozen:
            raise failures.NoCredentialsError
        # Nothing is sent: a signed URL contains the host to which boto3 sends its requests.
        request = {"Bucket": bucket, "Key": "x"}
        url = urlsplit(client.generate_presigned_url("get_object", Params=request))
    except failures.BotoCoreError as error:
        raise ConfigurationError(f"s3://{bucket}: {s3.meaning(error).reason}") from None
    virtual = url.netloc.startswith(f"{bucket}.") and not url.path.startswith(f"/{bucket}/")
    netloc = url.netloc.removeprefix(f"{bucket}.") if virtual else url.netloc
    path = "" if virtual else url.path.removesuffix(f"/{bucket}/x")
    about = client.meta
    region = "us-east-1" if about.region_name == "aws-global" else about.region_name
    if netloc == GLOBAL:  # only in signed URLs; requests go to the region
        netloc = f"s3.{region}.amazonaws.com"
    return Connection(
        bucket=bucket,
        endpoint=f"{url.scheme}://{netloc}{path}",
        virtual=virtual,
        region=region,
        ca=s3.certificates(session),
        proxy=_proxy(about.endpoint_url),
        key=frozen.access_key,
        secret=frozen.secret_key,
        token=frozen.token,
        renewable=credentials.method in OWN_CHAIN,
    )


def _proxy(endpoint: str) -> str | None:
    """The proxy that boto3 uses for a URL by HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""
    return ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint)


def _parts(proxy: str) -> dict[str, str | int]:
    """A proxy's URL in the parts that pyarrow expects."""
    url = urlsplit(proxy)
    port = url.port or (443 if url.scheme == "https" else 80)
    parts: dict[str, str | int] = {"scheme": url.scheme, "host": url.hostname or "", "port": port}
    if url.username:
        parts |= {"username": unquote(url.username), "password": unquote(url.password or "")}
    return parts
