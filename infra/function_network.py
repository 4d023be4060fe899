"""Takes the functions of a stage out of its network before they are deleted.

Lambda removes its network interfaces with the rights of the function's role: "If you delete the
execution role before Lambda deletes the Hyperplane ENI, Lambda won't be able to delete the
Hyperplane ENI." Chalice deletes each role right after its function. An interface that stays keeps
the network from being deleted.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
"""

import time
from collections.abc import Iterable
from functools import partial

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import code_of, done_unless, retry
from infra.stage_files import Json
from infra.terminal import Refused, say

POLL_SECONDS = 15.0
# AWS says up to 20 minutes, reports from the field say 45.
PATIENCE_SECONDS = 45 * 60.0
# Lambda makes one change of a function at a time.
CONFLICT_SECONDS = 120.0


def leave(lambdas: Client, ec2: Client, functions: Iterable[str], group_id: str) -> None:
    """Takes the functions out of the network, and waits until no interface uses their security
    group. Raises Refused where interfaces stay although the functions are there.

    Where the functions are gone, nobody but Lambda can remove an interface that is in use. Then
    this says so and returns."""
    there = [name for name in functions if _leaves(lambdas, name)]
    left = _wait_for_interfaces(ec2, group_id)
    if left and there:
        raise Refused(
            f"{left} network interfaces still use {group_id}: Lambda gives them back later; run"
            " make destroy again then. The functions and their roles stay until it has"
        )
    if left:
        say("network", f"{left} interfaces stay: Lambda cannot remove them without the functions")
    else:
        say("network", "no interface of a function is left")


def _leaves(lambdas: Client, function: str) -> bool:
    """Takes the function out of the network. Returns whether there is such a function."""
    try:
        found = lambdas.get_function_configuration(FunctionName=function)
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        return False
    if found.get("VpcConfig", {}).get("SubnetIds"):
        nowhere: Json = {"SubnetIds": [], "SecurityGroupIds": []}
        change = partial(
            lambdas.update_function_configuration, FunctionName=function, VpcConfig=nowhere
        )
        retry(change, {"ResourceConflictException"}, CONFLICT_SECONDS)
        say("function", f"{function}: leaves the network")
    return True


def _wait_for_interfaces(ec2: Client, group_id: str) -> int:
    """Returns how many interfaces use the security group in the end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    filters = [{"Name": "group-id", "Values": [group_id]}]
    while True:
        found = ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        used = [each for each in found if not _removed(ec2, each)]
        if not used or time.monotonic() > deadline:
            return len(used)
        say("network", f"{len(used)} interfaces of the functions are left, waiting for Lambda")
        time.sleep(POLL_SECONDS)


def _removed(ec2: Client, interface: Json) -> bool:
    """Removes an interface that nothing uses. Lambda may do the same at that moment."""
    if interface["Status"] != "available":
        return False
    done_unless(
        "InvalidNetworkInterfaceID.NotFound",
        ec2.delete_network_interface,
        NetworkInterfaceId=interface["NetworkInterfaceId"],
    )
    return True
