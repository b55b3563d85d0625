"""deploy/kuberay offline: pods, roles and policies against Kubernetes' own schema.

KubeRay's resource definition is not available offline: its field names are compared with those of
its API reference (version 1.7), and each pod within is checked as a pod.
"""

import json
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fundus.runtime.resources import amounts

FOLDER = Path(__file__).parent.parent / "deploy/kuberay"
VERSION = "1.33"
RAYJOB = set(
    [
        "activeDeadlineSeconds",
        "backoffLimit",
        "rayClusterSpec",
        "submitterPodTemplate",
        "metadata",
        "clusterSelector",
        "submitterConfig",
        "managedBy",
        "deletionStrategy",
        "entrypoint",
        "runtimeEnvYAML",
        "jobId",
        "submissionMode",
        "entrypointResources",
        "entrypointNumCpus",
        "entrypointNumGpus",
        "ttlSecondsAfterFinished",
        "shutdownAfterJobFinishes",
        "suspend",
        "preRunningDeadlineSeconds",
    ]
)
CLUSTER = set(
    [
        "authOptions",
        "suspend",
        "managedBy",
        "autoscalerOptions",
        "headServiceAnnotations",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "rayVersion",
        "workerGroupSpecs",
        "upgradeStrategy",
    ]
)
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def documents(name: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all((FOLDER / name).read_text()) if found]


NATIVE = [*documents("access.yaml"), *documents("nightly.yaml")]


@pytest.fixture
def job() -> dict[str, Any]:
    [found] = documents("job.yaml")
    return found


def cluster_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]


def templates(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by group, and the submitter's."""
    cluster = cluster_of(job)
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    groups |= {"submitter": job["spec"]["submitterPodTemplate"]}
    return groups | {"head": cluster["headGroupSpec"]["template"]}


def check(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("document", NATIVE, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_kubernetes_accepts_each_resource(document: dict[str, Any]) -> None:
    check(document)


@pytest.mark.parametrize("group", ["submitter", "head", "cpu", "gpu"])
def test_kubernetes_accepts_each_pod_of_the_job(job: dict[str, Any], group: str) -> None:
    template = deepcopy(templates(job)[group])
    metadata = template.pop("metadata", {}) | {"name": "pod"}
    check({"apiVersion": "v1", "kind": "Pod", "metadata": metadata} | template)


def test_a_misspelt_field_is_refused(job: dict[str, Any]) -> None:
    """Otherwise the tests above could not fail."""
    wrong = deepcopy(templates(job)["cpu"])
    wrong["spec"]["serviceAcountName"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}} | wrong)


def test_the_job_uses_fields_that_kuberay_has(job: dict[str, Any]) -> None:
    assert set(job["spec"]) <= RAYJOB
    assert set(cluster_of(job)) <= CLUSTER
    for group in cluster_of(job)["workerGroupSpecs"]:
        assert set(group) == GROUP
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]


def test_the_head_takes_no_work_and_demands_a_token(job: dict[str, Any]) -> None:
    assert cluster_of(job)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster_of(job)["authOptions"] == {"mode": "token"}


def test_nothing_can_be_reached_from_outside(job: dict[str, Any]) -> None:
    assert cluster_of(job)["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not {"Service", "Ingress"} & {document["kind"] for document in NATIVE}
    [policy] = [document for document in NATIVE if document["kind"] == "NetworkPolicy"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for rule in policy["spec"]["ingress"]:
        assert rule["from"], "an empty list admits everyone"


def test_the_policy_admits_the_submitter_and_the_operator(
    job: dict[str, Any],
) -> None:
    """By labels of the pods themselves: they lack those that KubeRay writes on a Job."""
    [policy] = [document for document in NATIVE if document["kind"] == "NetworkPolicy"]
    inside, operator, _ = policy["spec"]["ingress"]
    _, submitter = inside["from"]
    labels = templates(job)["submitter"]["metadata"]["labels"]
    assert submitter["podSelector"]["matchLabels"].items() <= labels.items()
    [name] = operator["from"][0]["podSelector"]["matchExpressions"]
    assert (name["key"], name["operator"]) == ("app.kubernetes.io/name", "In")
    assert set(name["values"]) == {"kuberay", "kuberay-operator"}


def test_a_job_is_not_retried_whatever_its_exit_code(job: dict[str, Any]) -> None:
    """KubeRay counts 2, 3 and 5 as failures, and each try starts a cluster."""
    assert job["spec"]["backoffLimit"] == 0


def test_accounts_have_only_the_permissions_that_they_need() -> None:
    assert not [document for document in NATIVE if document["kind"].startswith("Cluster")]
    roles = {d["metadata"]["name"]: d["rules"] for d in NATIVE if d["kind"] == "Role"}
    for rules in roles.values():
        for rule in rules:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]
    [nightly] = roles["fundus-nightly"]
    assert nightly["resources"] == ["rayjobs"] and nightly["verbs"] == ["create", "get"]


@pytest.mark.parametrize("group", ["submitter", "head", "cpu", "gpu"])
def test_no_container_is_root_or_may_become_root(job: dict[str, Any], group: str) -> None:
    spec = templates(job)[group]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_job_knows_how_far_its_groups_may_grow(job: dict[str, Any]) -> None:
    [head] = templates(job)["head"]["spec"]["containers"]
    [bounds] = [e["value"] for e in head["env"] if e["name"] == "FUNDUS_GROWS_TO"]
    total = {"CPU": 0, "GPU": 0, "memory": 0, "reader": 0}
    for group in cluster_of(job)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["memory"].endswith("Gi")
        total["CPU"] += group["maxReplicas"] * int(limits["cpu"])
        total["GPU"] += group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
        total["memory"] += group["maxReplicas"] * (int(limits["memory"][:-2]) << 30)
        # JSON in shell quotes, as KubeRay hands it to `ray start`.
        others = json.loads(json.loads(group["rayStartParams"].get("resources", '"{}"')))
        total["reader"] += group["maxReplicas"] * others.get("reader", 0)
    assert amounts(bounds) == total


def test_the_nightly_pod_creates_the_job_of_its_date() -> None:
    """The pod's own command, with `cat` in the place of kubectl."""
    [cron] = [document for document in NATIVE if document["kind"] == "CronJob"]
    [container] = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    [*_, command] = container["command"]
    command = command.replace("/rayjob", str(FOLDER)).replace("kubectl create --filename -", "cat")
    done = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, check=True)
    made = yaml.safe_load(done.stdout)
    today = subprocess.run(["date", "-u", "+%F"], capture_output=True, text=True, check=True)
    assert made["metadata"]["name"] == made["spec"]["jobId"] == f"screen-{today.stdout.strip()}"
