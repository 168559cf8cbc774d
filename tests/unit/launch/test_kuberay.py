"""The manifests of KubeRay against its definitions, Ray's autoscaler and cluster.yaml;
the Dockerfile against the pins.
"""

from __future__ import annotations

import gzip
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1ray.config.load import load_config
from tests.unit.cluster_files import PROJECT, load

CLUSTERS = PROJECT / "conf" / "clusters"
CRDS = Path(os.environ.get("R1RAY_KUBERAY", PROJECT.parent / "shared/data/kuberay"))
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no definitions of KubeRay at {CRDS}; set R1RAY_KUBERAY")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTERS / name).read_text(encoding="utf-8")))


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(name) if document["kind"] == kind]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    (made,) = of_kind("kuberay.yaml", "RayCluster")
    return made


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (made,) = of_kind("kuberay-job.yaml", "RayJob")
    return made


def closed(schema: Any) -> Any:
    """The schema with every object closed to keys that it does not name, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


@needs_crds
@pytest.mark.parametrize(("file", "kind"), [("kuberay.yaml", "RayCluster"), ("kuberay-job.yaml", "RayJob")])
def test_the_definitions_of_kuberay_accept_the_manifest(file: str, kind: str) -> None:
    import jsonschema

    (manifest,) = of_kind(file, kind)
    packed = CRDS / f"ray.io_{kind.lower()}s.yaml.gz"
    definition = yaml.load(gzip.decompress(packed.read_bytes()), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema["properties"]["metadata"] = {"type": "object"}
    problems = jsonschema.Draft7Validator(closed(schema)).iter_errors(manifest)
    assert [f"{'.'.join(map(str, p.absolute_path))}: {p.message[:300]}" for p in problems] == []


def test_rays_autoscaler_reads_the_roles_of_the_overlay_from_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    read = _derive_autoscaling_config_from_ray_cr(cluster | {"metadata": {"name": "r1ray", "namespace": "default"}})
    kinds = AutoscalingConfig(read, skip_content_hash=True).get_node_type_configs()
    on_aws = load("cluster.yaml")["available_node_types"]
    ray = load_config(["models/qwen2.5-7b", "clusters/ray"]).config.ray
    for role, asked in (
        ("rollout", ray.rollout_resources),
        ("learner", ray.learner_resources),
        ("reward", ray.reward_resources),
        ("head", ray.queue_resources),
    ):
        (kind,) = [made for made in kinds.values() if role in made.resources]
        here = {name: amount for name, amount in kind.resources.items() if name != "memory"}
        assert {name: amount for name, amount in here.items() if amount} == on_aws[role]["resources"]
        assert here[role] >= asked[role]
        assert role == "head" or kind.max_worker_nodes == on_aws[role]["max_workers"]


def pods(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = {g["groupName"]: g for g in cluster["spec"]["workerGroupSpecs"]}
    return {name: g["template"]["spec"] for name, g in ({"head": cluster["spec"]["headGroupSpec"]} | groups).items()}


def test_every_pod_has_probes_no_root_and_no_more_rights_than_it_needs(cluster: dict[str, Any]) -> None:
    for name, pod in pods(cluster).items():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["restartPolicy"] == "Never", "as version 2 of the autoscaler needs"
        assert pod["automountServiceAccountToken"] is (name == "head")
        for probe in ("readinessProbe", "livenessProbe"):
            assert "local_raylet_healthz" in str(container[probe]["exec"]["command"])
        unconfined = container["securityContext"].get("seccompProfile") == {"type": "Unconfined"}
        assert unconfined is (name == "reward"), "only the sandbox needs it"
        assert pod.get("hostUsers", True) is not unconfined
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_token_and_all_passwords_come_from_secrets(cluster: dict[str, Any], job: dict[str, Any]) -> None:
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "r1ray-token"}
    (container,) = job["spec"]["submitterPodTemplate"]["spec"]["containers"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "r1ray-token", "key": "auth_token"}}
    assert not of_kind("kuberay.yaml", "Secret")
    password = cluster["spec"]["gcsFaultToleranceOptions"]["redisPassword"]
    assert password == {"valueFrom": {"secretKeyRef": {"name": "r1ray-redis", "key": "password"}}}


def test_every_claim_is_made_and_the_head_has_a_disk_of_its_own(cluster: dict[str, Any]) -> None:
    claims = {c["metadata"]["name"]: c["spec"]["accessModes"] for c in of_kind("kuberay.yaml", "PersistentVolumeClaim")}
    used = re.findall(r"'claimName': '([^']+)'", str(documents("kuberay.yaml")))
    assert set(used) == set(claims)
    assert claims == {
        "r1ray-shared": ["ReadWriteMany"],
        "r1ray-head": ["ReadWriteOnce"],
        "r1ray-redis": ["ReadWriteOnce"],
    }
    mounts = {m["mountPath"] for m in pods(cluster)["head"]["containers"][0]["volumeMounts"]}
    assert {"/shared", "/local"} <= mounts


def test_the_job_runs_on_the_head_of_that_cluster_and_resumes(cluster: dict[str, Any], job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert spec["entrypointResources"] == '{"head": 0.01}'
    assert "r1ray train --resume $run" in spec["entrypoint"]
    overlays = re.search(r"r1ray train (models\S+) (clusters\S+) ", spec["entrypoint"])
    assert overlays is not None
    overrides = re.findall(r"\b(\w+\.\w+=[^\s;']+)", spec["entrypoint"])
    config = load_config([*overlays.groups()], overrides).config
    assert (config.run.dir, config.deadlines.actor_start_s) == ("$run", 1800.0)
    # The ledger lies on the head's own claim, where its pod comes and goes.
    head = pods(cluster)["head"]
    (mount,) = [m for m in head["containers"][0]["volumeMounts"] if m["mountPath"] == "/local"]
    (volume,) = [v for v in head["volumes"] if v["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"]["claimName"] == "r1ray-head"
    assert config.run.ledger_dir == "/local/ledgers"


def pins() -> dict[str, str]:
    lines = (PROJECT / "conf" / "pins" / "gpu.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_image_and_manifests_have_the_versions_of_the_pins(cluster: dict[str, Any], job: dict[str, Any]) -> None:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    ray = pins()["ray[default]"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == [f"rayproject/ray:{ray}-py312"]
    assert "3.12" in str(project["classifiers"])
    assert f"ray.__version__)')\" = {ray}" in text
    assert f"ARG VERSION={project['version']}" in text
    assert cluster["spec"]["rayVersion"] == ray
    images = set(re.findall(r"'image': '([^']*r1ray[^']*)'", str([cluster, job])))
    assert images == {f"registry.example.com/r1ray:{project['version']}"}


def test_the_image_installs_the_gpu_pins_and_the_sandbox_and_does_not_run_as_root() -> None:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["root", "ray"]
    assert "COPY --chown=ray:users conf/pins/gpu.txt pins.txt" in text
    assert "-r pins.txt" in text
    assert {"setuptools", "torch"} <= set(pins())
    assert re.search(r"apt-get install .*\bbubblewrap\b", text)
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".git", ".venv", "runs", "models"} <= set(ignored)
    assert not {"conf", "r1ray", "actors", "learner", "pyproject.toml", "README.md", "LICENSE"} & set(ignored)
