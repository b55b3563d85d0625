"""cluster.yaml and foundation.yaml together, on a stand-in for AWS, by the code that `ray up` runs.

The stand-in (moto) answers AWS's API in this process: it makes the stack, finds the group, starts
nodes. It cannot tell whether AWS would refuse a call by policy, so the policies are read instead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.awsrequest import AWSResponse
from cfnlint.api import lint_all
from moto import mock_aws
from moto.ec2.models.instance_types import InstanceTypeBackend
from ray.autoscaler._private.providers import _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException

ROOT = Path(__file__).parent.parent
TEMPLATE = (ROOT / "deploy/aws/foundation.yaml").read_text()
TAGS = {"ray-node-type": "worker", "ray-user-node-type": "gpu"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The EC2 client of an account with the stack in its default network."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _account(home, monkeypatch)


def _account(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Other tests of this process put their own S3 server into the environment.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("BOTO_CREATE_MAX_RETRIES", "1")
    monkeypatch.setenv("HOME", str(home))
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    monkeypatch.setenv("AWS_DEFAULT_REGION", config["provider"]["region"])
    # Ray lists every type of instance; moto needs 14 s to describe all that it knows.
    ours = {kind["node_config"]["InstanceType"] for kind in config["available_node_types"].values()}
    few = [kind for kind in InstanceTypeBackend.instance_types if kind.name in ours]
    monkeypatch.setattr(InstanceTypeBackend, "instance_types", few)
    with mock_aws():
        ec2 = boto3.client("ec2")
        parameters = {
            "Vpc": ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
            "OperatorNetwork": "203.0.113.0/24",
            "ArchiveBucket": "clinic",
            "ArchivePrefix": "2027/",
            "ResultsBucket": "screening",
        }
        boto3.client("cloudformation").create_stack(
            StackName="fundus",
            TemplateBody=TEMPLATE,
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield ec2


@pytest.fixture(scope="module")
def ready(aws: Any) -> dict[str, Any]:
    """cluster.yaml as `ray up` hands it to the head."""
    [stack] = boto3.client("cloudformation").describe_stacks(StackName="fundus")["Stacks"]
    [group] = [o["OutputValue"] for o in stack["Outputs"] if o["OutputKey"] == "SecurityGroup"]
    return made_ready(aws, group)


def made_ready(aws: Any, group: str) -> dict[str, Any]:
    """The same with this security group where cluster.yaml says CHANGE."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    image = aws.describe_images()["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        kind["node_config"] |= {"ImageId": image, "SecurityGroupIds": [group]}
    provider = _get_node_provider_cls(config["provider"])
    config = provider.fillout_available_node_types_resources(prepare_config(config))
    validate_config(config)
    return provider.bootstrap_config(config)


def provider_of(config: dict[str, Any]) -> Any:
    return _get_node_provider_cls(config["provider"])(config["provider"], config["cluster_name"])


def gpu_node(config: dict[str, Any]) -> dict[str, Any]:
    return config["available_node_types"]["gpu"]["node_config"]


@contextmanager
def new_nodes(aws: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that on exit holds the nodes that started within."""

    def all_nodes() -> dict[str, dict[str, Any]]:
        found = aws.describe_instances()["Reservations"]
        return {i["InstanceId"]: i for reservation in found for i in reservation["Instances"]}

    before, new = all_nodes(), []  # type: ignore[var-annotated]
    yield new
    new += [node for name, node in all_nodes().items() if name not in before]


@contextmanager
def refused(provider: Any, code: str, *, spot_alone: bool = True) -> Iterator[list[str]]:
    """Make AWS refuse new nodes within; yield the list of tries, each by its kind."""
    tries = []

    def answer(params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]] | None:
        spot = any("InstanceMarketOptions" in name for name in params["body"])
        tries.append("spot" if spot else "on demand")
        if spot_alone and not spot:
            return None
        return AWSResponse("", 400, {}, None), {"Error": {"Code": code, "Message": "no"}}

    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register_first("before-call.ec2.RunInstances", answer)
    yield tries
    events.unregister("before-call.ec2.RunInstances", answer)


def test_a_linter_finds_no_fault_in_the_template() -> None:
    found = [str(match) for match in lint_all(TEMPLATE)]
    assert [text for text in found if not text.startswith("[I")] == []  # I: information


def test_nodes_start_as_spot_in_the_closed_group_with_the_workers_profile(
    aws: Any, ready: dict[str, Any]
) -> None:
    with new_nodes(aws) as nodes:
        provider_of(ready).create_node(gpu_node(ready), TAGS, 1)
    [node] = nodes
    assert node["InstanceLifecycle"] == "spot"
    assert node["IamInstanceProfile"]["Arn"].endswith("/fundus-worker")
    assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert {"Key": "ray-cluster-name", "Value": "fundus"} in node["Tags"]
    [group] = node["SecurityGroups"]
    [ssh, inside] = aws.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"][0][
        "IpPermissions"
    ]
    assert (ssh["FromPort"], ssh["IpRanges"]) == (22, [{"CidrIp": "203.0.113.0/24"}])
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]
    assert inside["IpRanges"] == []


def test_a_missing_security_group_is_refused_and_none_is_created(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(aws.describe_security_groups()["SecurityGroups"])
    with pytest.raises(AssertionError):
        made_ready(aws, "sg-00000000000000000")
    assert "Failed to detect a security group" in capsys.readouterr().err
    assert len(aws.describe_security_groups()["SecurityGroups"]) == before


def test_ray_knows_the_resources_of_each_node_type(ready: dict[str, Any]) -> None:
    kinds = ready["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert kinds["cpu"]["resources"]["CPU"] == 16


def test_an_on_demand_node_starts_if_there_is_no_spot_node(aws: Any, ready: dict[str, Any]) -> None:
    provider = provider_of(ready)
    with new_nodes(aws) as nodes, refused(provider, "InsufficientInstanceCapacity") as tries:
        provider.create_node(gpu_node(ready), TAGS, 1)
    assert tries[0] == "spot" and tries[-1] == "on demand" and tries.count("on demand") == 1
    [node] = nodes
    assert "InstanceLifecycle" not in node
    assert {"Key": "ray-user-node-type", "Value": "gpu"} in node["Tags"]


def test_a_refusal_for_another_reason_starts_no_node(aws: Any, ready: dict[str, Any]) -> None:
    provider = provider_of(ready)
    with (
        new_nodes(aws) as nodes,
        refused(provider, "UnauthorizedOperation") as tries,
        pytest.raises(NodeLaunchException, match="UnauthorizedOperation"),
    ):
        provider.create_node(gpu_node(ready), TAGS, 1)
    assert set(tries) == {"spot"} and nodes == []


def test_an_error_is_raised_if_there_is_no_node_at_all(aws: Any, ready: dict[str, Any]) -> None:
    provider = provider_of(ready)
    with (
        refused(provider, "InsufficientInstanceCapacity", spot_alone=False) as tries,
        pytest.raises(NodeLaunchException, match="InsufficientInstanceCapacity"),
    ):
        provider.create_node(gpu_node(ready), TAGS, 1)
    assert set(tries) == {"spot", "on demand"}


def statements(aws: Any) -> list[dict[str, Any]]:
    """The policy statements of a head; a worker has only the first ones."""
    iam = boto3.client("iam")
    [data] = iam.list_policies(Scope="Local")["Policies"]
    for role in ("fundus-head", "fundus-worker"):
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert [policy["PolicyArn"] for policy in attached] == [data["Arn"]]
    assert iam.list_role_policies(RoleName="fundus-worker")["PolicyNames"] == []
    version = iam.get_policy_version(PolicyArn=data["Arn"], VersionId="v1")["PolicyVersion"]
    head = iam.get_role_policy(RoleName="fundus-head", PolicyName="start-and-end-workers")
    documents = [version["Document"], head["PolicyDocument"]]
    return [
        s for d in documents for s in (yaml.safe_load(d) if isinstance(d, str) else d)["Statement"]
    ]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_no_statement_has_a_needless_wildcard(aws: Any) -> None:
    for statement in statements(aws):
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in as_list(statement["Action"]))
        for resource in as_list(statement["Resource"]):
            assert resource != "*" or statement["Action"] == "ec2:DescribeInstances"


def test_the_archive_can_be_read_but_not_written(aws: Any) -> None:
    allowed = {
        action: as_list(statement["Resource"])
        for statement in statements(aws)
        for action in as_list(statement["Action"])
        if action.startswith("s3:") and action != "s3:ListBucket"
    }
    reads = [
        r for s in statements(aws) if "s3:GetObject" in s["Action"] for r in as_list(s["Resource"])
    ]
    assert reads == ["arn:aws:s3:::clinic/2027/*", "arn:aws:s3:::screening/*"]
    for action in set(allowed) - {"s3:GetObject"}:
        assert allowed[action] == ["arn:aws:s3:::screening/*"]


def test_the_head_starts_only_nodes_of_the_pools_and_ends_only_its_own(
    aws: Any, ready: dict[str, Any]
) -> None:
    by_name = {statement["Sid"]: statement for statement in statements(aws)}
    started = by_name["StartTaggedNodes"]["Condition"]["StringEquals"]
    kinds = ready["available_node_types"]
    pools = {kind["node_config"]["InstanceType"] for name, kind in kinds.items() if name != "head"}
    types = started["ec2:InstanceType"]  # the stand-in leaves a list as it was written
    assert set(types.split(",") if isinstance(types, str) else types) == pools
    assert started["aws:RequestTag/ray-cluster-name"] == ready["cluster_name"]
    ended = by_name["EndItsOwn"]["Condition"]["StringEquals"]
    assert ended == {"aws:ResourceTag/ray-cluster-name": ready["cluster_name"]}
    assert by_name["GiveWorkersTheirRole"]["Resource"].endswith(":role/fundus-worker")
