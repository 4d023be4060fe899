"""Functions leave the network before they are deleted, and what then stays is told."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import aws_errors, function_network
from infra.terminal import Refused

FUNCTIONS = ("herocache-dev", "herocache-dev-sync")


class Aws:
    """Lambda and EC2. Lambda removes its interfaces after `seconds`, unless a function is in the
    network; the field `foreign` names interfaces that nobody uses."""

    def __init__(self, functions: tuple[str, ...], seconds: float = 60.0, conflicts: int = 0):
        self.in_network = set(functions)
        self.functions, self.seconds, self.conflicts = functions, seconds, conflicts
        self.foreign: list[str] = []
        self.now, self.left_at = 0.0, 0.0

    @property
    def clock(self) -> SimpleNamespace:
        return SimpleNamespace(sleep=self._sleep, monotonic=lambda: self.now)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        if FunctionName not in self.functions:
            error = {"Code": "ResourceNotFoundException", "Message": "gone"}
            raise ClientError({"Error": error}, "GetFunctionConfiguration")
        subnets = ["subnet-1"] if FunctionName in self.in_network else []
        return {"VpcConfig": {"SubnetIds": subnets}}

    def update_function_configuration(self, FunctionName: str, VpcConfig: Any) -> None:
        if self.conflicts:
            self.conflicts -= 1
            error = {"Code": "ResourceConflictException", "Message": "an update is in progress"}
            raise ClientError({"Error": error}, "UpdateFunctionConfiguration")
        assert VpcConfig == {"SubnetIds": [], "SecurityGroupIds": []}
        self.in_network.remove(FunctionName)
        self.left_at = self.now

    def describe_network_interfaces(self, Filters: Any) -> dict[str, Any]:
        assert Filters == [{"Name": "group-id", "Values": ["sg-1"]}]
        found = [{"NetworkInterfaceId": id, "Status": "available"} for id in self.foreign]
        if self.in_network or self.now - self.left_at < self.seconds:
            found += [{"NetworkInterfaceId": "eni-1", "Status": "in-use"}]
        return {"NetworkInterfaces": found}

    def delete_network_interface(self, NetworkInterfaceId: str) -> None:
        if NetworkInterfaceId == "eni-race":
            error = {"Code": "InvalidNetworkInterfaceID.NotFound", "Message": "gone"}
            raise ClientError({"Error": error}, "DeleteNetworkInterface")
        self.foreign.remove(NetworkInterfaceId)


def leave(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aws_errors, function_network):
        monkeypatch.setattr(module, "time", aws.clock)
    function_network.leave(aws, aws, FUNCTIONS, "sg-1")


def test_interfaces_are_waited_for_until_lambda_has_removed_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws = Aws(FUNCTIONS, seconds=20 * 60)
    leave(aws, monkeypatch)
    assert not aws.in_network
    assert aws.now == 20 * 60
    assert "no interface of a function is left" in capsys.readouterr().out


def test_a_function_that_changes_just_now_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FUNCTIONS, conflicts=5)
    leave(aws, monkeypatch)
    assert not aws.in_network


def test_interfaces_that_nothing_uses_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FUNCTIONS, seconds=0)
    aws.foreign = ["eni-2"]
    leave(aws, monkeypatch)
    assert aws.foreign == []
    aws.foreign = ["eni-race"]
    leave(aws, monkeypatch)


def test_functions_stay_while_lambda_needs_their_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FUNCTIONS, seconds=100 * 3600)
    with pytest.raises(Refused, match=r"1 network interfaces still use sg-1.*run make destroy"):
        leave(aws, monkeypatch)
    assert aws.now >= function_network.PATIENCE_SECONDS


def test_without_functions_the_network_is_tried_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then CloudFormation says what it cannot delete, and the stack can go without it."""
    leave(Aws((), seconds=100 * 3600), monkeypatch)
    assert "1 interfaces stay" in capsys.readouterr().out
