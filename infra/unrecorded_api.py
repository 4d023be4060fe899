"""The API of a deployment that failed half-way, or whose record is on another machine.

Chalice finds functions and roles by their names, but an API only by the file in which it records
what it made, and it writes that file last. Without it, Chalice would make a second API.
"""

from collections.abc import Iterator

from infra.account import Client, region
from infra.stage_files import APP, Json, Stage
from infra.terminal import Refused, say

# Chalice's name for the API in that file.
REST_API = "rest_api"


def record(gateway: Client, stage: Stage) -> None:
    """Records the API of this stage, where there is one that Chalice has no record of, so that
    `chalice deploy` goes on with it and its URL stays. Raises Refused where there are several."""
    if stage.deployed():
        return
    found = [str(api["id"]) for api in apis(gateway, stage)]
    if len(found) > 1:
        raise Refused(
            f"{stage.full_name} has {len(found)} APIs ({', '.join(found)}), and"
            f" {stage.deployed_file} is not there: delete all but the one that callers use (aws"
            " apigateway delete-rest-api --rest-api-id …), then run make deploy again"
        )
    for id in found:
        url = f"https://{id}.execute-api.{region()}.amazonaws.com/{stage.api_stage}/"
        names = {"name": REST_API, "resource_type": REST_API}
        stage.record([{**names, "rest_api_id": id, "rest_api_url": url}])
        say("api", f"{id}: is there without a record, going on with it")


def apis(gateway: Client, stage: Stage) -> Iterator[Json]:
    """The APIs of this app that serve this stage, or that call its function and serve none yet."""
    for page in gateway.get_paginator("get_rest_apis").paginate():
        for api in page["items"]:
            if api["name"] == APP and _is_of(gateway, api["id"], stage):
                yield api


def _is_of(gateway: Client, api_id: str, stage: Stage) -> bool:
    served = [each["stageName"] for each in gateway.get_stages(restApiId=api_id)["item"]]
    return stage.api_stage in served or (not served and _calls(gateway, api_id, stage.full_name))


def _calls(gateway: Client, api_id: str, function: str) -> bool:
    found = gateway.get_resources(restApiId=api_id, embed=["methods"], limit=500)["items"]
    methods = [method for each in found for method in each.get("resourceMethods", {}).values()]
    uris = [method.get("methodIntegration", {}).get("uri", "") for method in methods]
    return any(f":function:{function}/" in uri for uri in uris)
