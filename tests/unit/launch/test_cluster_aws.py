"""cluster.yaml and conf/clusters/aws-base.yaml against Ray's launcher, with moto in the place of AWS."""

from __future__ import annotations

import copy
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from r1ray.util.yaml_text import read_yaml
from tests.unit.cluster_files import PROJECT, load

boto3 = pytest.importorskip("boto3", reason="the optional package boto3 is not installed")
moto = pytest.importorskip("moto", reason="the optional package moto is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

API = "openapi_spec_validator"
REGION = "us-west-2"
IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
KNOWN_IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"  # to moto
OUTPUTS = {
    "image": "Image",
    "subnet": "Subnet",
    "group": "SecurityGroup",
    "placement": "PlacementGroup",
    "profile": "Profile",
    "prepare": "SharedFileSystem",
}
"""Value in the first part of cluster.yaml -> output of the stack."""


class _Tag:
    """A CloudFormation tag, such as !Ref, which is not read here."""


def _template_loader() -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: _Tag())
    return Loader


@pytest.fixture(scope="module")
def models_are_read_once() -> Iterator[None]:
    """botocore reads megabytes of JSON for each client, and Ray makes many."""
    from botocore.loaders import JSONFileLoader

    read = functools.cache(functools.partial(JSONFileLoader._load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "_load_file", lambda self, path, open_method: read(path, open_method))
        yield


@pytest.fixture
def account(models_are_read_once: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Outputs of the stack of aws-base.yaml, by name. moto knows no placement groups."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # 1,300 of them, at every start and end of its EC2
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (API, f"{API}.validation", f"{API}.validation.exceptions"):
        monkeypatch.setitem(sys.modules, name, MagicMock())  # of moto's API Gateway, which its CloudFormation imports
    from ray.autoscaler._private.aws import config as ray_config
    from ray.autoscaler._private.aws import utils

    with moto.mock_aws():
        for cache in (utils.resource_cache, ray_config._get_subnets_or_die):
            cache.cache_clear()
        stacks = boto3.client("cloudformation", REGION)
        body = (PROJECT / "conf" / "clusters" / "aws-base.yaml").read_text(encoding="utf-8")
        assert IMAGE in body
        stacks.create_stack(StackName="r1ray", TemplateBody=body.replace(IMAGE, KNOWN_IMAGE))
        (stack,) = stacks.describe_stacks(StackName="r1ray")["Stacks"]
        made = {o["OutputKey"]: str(o["OutputValue"]) for o in stack["Outputs"]}
        yield made | {"PlacementGroup": "r1ray-placement"}


def filled(outputs: dict[str, str]) -> dict[str, Any]:
    """cluster.yaml after an operator has set its first part."""
    text = (PROJECT / "cluster.yaml").read_text(encoding="utf-8")
    for value, output in OUTPUTS.items():
        line = re.search(rf"^  {value}: .*CHANGE.*$", text, re.MULTILINE)
        assert line is not None, value
        text = text.replace(line[0], re.sub(r"[^\s:]*CHANGE", outputs[output], line[0], count=1))
    loaded: dict[str, Any] = read_yaml(text)
    return loaded


def bootstrapped(outputs: dict[str, str]) -> dict[str, Any]:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(filled(outputs))
    validate_config(config)
    made: dict[str, Any] = bootstrap_aws(config)
    return made


def launched(config: dict[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request by which Ray's provider launches a node of this kind, and the instance as EC2 describes it."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    requests: list[dict[str, Any]] = []
    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register("before-parameter-build.ec2.RunInstances", lambda params, **_: requests.append(params))
    node = config["available_node_types"][kind]["node_config"]
    nodes = provider.create_node(copy.deepcopy(node), {TAG_RAY_USER_NODE_TYPE: kind}, 1)
    (reservation,) = boto3.client("ec2", REGION).describe_instances(InstanceIds=list(nodes))["Reservations"]
    return requests[0], reservation["Instances"][0]


def test_everything_to_change_is_named_by_an_output_of_the_stack(account: dict[str, str]) -> None:
    text = (PROJECT / "cluster.yaml").read_text(encoding="utf-8")
    changes = re.findall(r"^ *(\w+): .*\bCHANGE\b(?! all)", text, re.MULTILINE) + re.findall(
        r"(\w+): &\w+ \w+-CHANGE", text
    )
    assert set(changes) == {*OUTPUTS}
    template = yaml.load(
        (PROJECT / "conf/clusters/aws-base.yaml").read_text(encoding="utf-8"), Loader=_template_loader()
    )
    assert set(template["Outputs"]) == set(OUTPUTS.values())
    assert "CHANGE" not in str(filled(account))


def test_ray_finds_image_network_and_profile_and_makes_a_key(account: dict[str, str]) -> None:
    config = bootstrapped(account)
    kinds = config["available_node_types"]
    for kind in kinds.values():
        node = kind["node_config"]
        assert node["ImageId"] == account["Image"]
        assert node["ImageId"].startswith("ami-")
        assert set(node["SubnetIds"]) == {account["Subnet"]}
        assert set(node["SecurityGroupIds"]) == {account["SecurityGroup"]}
        assert node["KeyName"] == "ray-autoscaler_us-west-2"
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert kinds["head"]["node_config"]["IamInstanceProfile"] == {"Name": account["Profile"]}
    assert all("IamInstanceProfile" not in kinds[kind]["node_config"] for kind in ("reward", "rollout", "learner"))
    (group,) = boto3.client("ec2", REGION).describe_security_groups(GroupIds=[account["SecurityGroup"]])[
        "SecurityGroups"
    ]
    (rule,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [account["SecurityGroup"]]
    assert not rule["IpRanges"], "no address outside the cluster reaches a node"


def test_the_profile_may_do_what_the_head_needs_and_nothing_with_ssm_parameters(account: dict[str, str]) -> None:
    iam = boto3.client("iam", REGION)
    profile = iam.get_instance_profile(InstanceProfileName=account["Profile"])["InstanceProfile"]
    (role,) = profile["Roles"]
    document = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="launch-nodes")["PolicyDocument"]
    document = yaml.safe_load(document) if isinstance(document, str) else document  # moto keeps a template's as text
    allowed = {
        a for s in document["Statement"] for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:Describe*"} <= allowed
    assert not any(action.startswith("ssm:") for action in allowed)
    assert "resolve:ssm" not in str(load("cluster.yaml"))


def test_learner_nodes_launch_in_one_placement_group_with_an_efa_interface_on_each_card(
    account: dict[str, str],
) -> None:
    config = bootstrapped(account)
    cards = config["available_node_types"]["learner"]["node_config"]["NetworkInterfaces"]
    assert [card["NetworkCardIndex"] for card in cards] == [0, 1, 2, 3]
    assert [card["DeviceIndex"] for card in cards] == [0, 1, 1, 1]
    assert {card["InterfaceType"] for card in cards} == {"efa"}
    assert all(card["Groups"] == [account["SecurityGroup"]] for card in cards)
    request, instance = launched(config, "learner")
    assert request["Placement"] == {"GroupName": account["PlacementGroup"]}
    assert request["NetworkInterfaces"] == cards
    assert not {"SubnetId", "SubnetIds", "SecurityGroupIds"} & set(request), "EC2 takes them from the interfaces alone"
    assert instance["InstanceType"] == "p4de.24xlarge"
    assert instance["ImageId"] == account["Image"]
    assert instance["SubnetId"] == account["Subnet"]
    assert "InstanceLifecycle" not in instance


def test_rollout_nodes_launch_on_spot_with_the_learners_network_outside_its_placement_group(
    account: dict[str, str],
) -> None:
    kinds = bootstrapped(account)["available_node_types"]
    rollout, learner = kinds["rollout"]["node_config"], kinds["learner"]["node_config"]
    assert rollout["InstanceMarketOptions"]["MarketType"] == "spot"
    assert rollout["NetworkInterfaces"] == learner["NetworkInterfaces"]
    assert "Placement" not in rollout


def test_the_second_autoscaler_reads_the_file_and_counts_a_node_for_each_kind(account: dict[str, str]) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    config = AutoscalingConfig(bootstrapped(account), skip_content_hash=True)
    kinds = config.get_node_type_configs()
    assert {name: kind.max_worker_nodes for name, kind in kinds.items() if name != "head"} == {
        "reward": 4,
        "rollout": 16,
        "learner": 8,
    }
    assert config.get_max_num_worker_nodes() == 28 == load("cluster.yaml")["max_workers"]
    assert config.get_head_node_type() == "head"
    commands = config.get_worker_start_ray_commands()
    assert all(command.startswith(". ~/.r1ray_env;") for command in commands)
