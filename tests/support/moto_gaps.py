"""What moto lacks for our commands.

Each gap is closed by one patch and guarded: where a new moto closes or moves it, `close_gaps` fails
and says which patch to remove.
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from moto.apigateway.exceptions import ApiKeyNotFoundException
from moto.apigateway.models import APIGatewayBackend, RestAPI
from moto.awslambda import urls as lambda_urls
from moto.awslambda.models import LambdaBackend, lambda_backends
from moto.awslambda.responses import LambdaResponse
from moto.backends import list_of_moto_modules
from moto.cloudformation import parsing
from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.iam.exceptions import InvalidInput
from moto.iam.models import IAMBackend, iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.rds.models import DBInstance, rds_backends
from moto.rds.responses import RDSResponse
from moto.rdsdata.models import RDSDataServiceBackend
from moto.s3 import notifications
from moto.secretsmanager.models import secretsmanager_backends

from tests.support.emulated_aws import REGION, Json

# How many functions an account may usually run at once.
CONCURRENCY = 1000


def close_gaps(patch: pytest.MonkeyPatch) -> None:
    """Raises AssertionError where one is not there any more."""
    patch.setattr(notifications, "_invoke_awslambda", _invoke_nothing)
    _import_apis_of_chalice(patch)
    _compress_answers(patch)
    _deploy_gateway_responses(patch)
    _answer_account_settings(patch)
    _switch_data_apis(patch)
    _record_statements(patch)
    _delete_networks(patch)
    _hold_interfaces(patch)
    _refuse_roles_that_are_there(patch)
    _answer_plans(patch)
    _miss_keys_of_plans(patch)
    for resource_type, name_property in STAND_INS.items():
        _stand_in(patch, resource_type, name_property)


def closed(gap: str) -> str:
    return f"moto has closed a gap ({gap}): remove its patch from tests/support/moto_gaps.py"


def fails(error: type[Exception], call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except error:
        return True
    return False


def _invoke_nothing(*_: object) -> None:
    """S3 tells `ingest` of every object; moto would look for a Docker to run it in."""


def _bytes(body: bytes | str) -> bytes:
    return body if isinstance(body, bytes) else body.encode()


def _import_apis_of_chalice(patch: pytest.MonkeyPatch) -> None:
    """They are Swagger 2.0 without a description; moto takes OpenAPI 3 with one."""
    document = {"swagger": "2.0", "info": {"title": "gap"}, "paths": {}}
    backend = APIGatewayBackend("us-east-1", "111111111111")
    assert fails(KeyError, backend.import_rest_api, document, False), closed("Swagger")
    put = APIGatewayBackend.put_rest_api
    create = APIGatewayBackend.import_rest_api

    def as_openapi(document: Json) -> Json:
        kept = {name: value for name, value in document.items() if name != "swagger"}
        return {**kept, "openapi": "3.0.1", "info": {"description": "", **document["info"]}}

    def put_and_note(self: Any, function_id: str, api_doc: Json, *args: Any, **kwargs: Any) -> Any:
        self.__dict__.setdefault("documents", {})[function_id] = api_doc
        return put(self, function_id, as_openapi(api_doc), *args, **kwargs)

    def import_api(self: Any, api_doc: Json, fail_on_warnings: bool) -> Any:
        api = create(self, as_openapi(api_doc), fail_on_warnings)
        self.documents[api.id] = api_doc
        return api

    patch.setattr(APIGatewayBackend, "put_rest_api", put_and_note)
    patch.setattr(APIGatewayBackend, "import_rest_api", import_api)
    assert backend.import_rest_api(document, False).name == "gap"


def _compress_answers(patch: pytest.MonkeyPatch) -> None:
    """UpdateRestApi of the size from which answers are compressed."""
    api = APIGatewayBackend("us-east-1", "111111111111").create_rest_api("gap", "")
    operation = {"op": "replace", "path": "/minimumCompressionSize", "value": "7"}
    api.apply_patch_operations([operation])
    assert api.minimum_compression_size is None, closed("minimumCompressionSize")
    apply = RestAPI.apply_patch_operations

    def apply_and_compress(self: Any, operations: list[Json]) -> None:
        apply(self, operations)
        for each in operations:
            if each["path"] == operation["path"]:
                self.minimum_compression_size = int(each["value"]) if each["value"] else None

    patch.setattr(RestAPI, "apply_patch_operations", apply_and_compress)


def _deploy_gateway_responses(patch: pytest.MonkeyPatch) -> None:
    """An import removes gateway responses, and a stage serves those of its last deployment. moto
    has only those that were put last."""
    create, put = RestAPI.create_deployment, APIGatewayBackend.put_rest_api
    assert not hasattr(RestAPI, "deployed_responses"), closed("gateway responses")

    def create_and_keep(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.deployed_responses = {
            kind: response.to_json() for kind, response in self.gateway_responses.items()
        }
        return create(self, *args, **kwargs)

    def put_and_forget(self: Any, function_id: str, *args: Any, **kwargs: Any) -> Any:
        self.get_rest_api(function_id).gateway_responses.clear()
        return put(self, function_id, *args, **kwargs)

    patch.setattr(RestAPI, "create_deployment", create_and_keep)
    patch.setattr(APIGatewayBackend, "put_rest_api", put_and_forget)


def _answer_account_settings(patch: pytest.MonkeyPatch) -> None:
    """GetAccountSettings of Lambda."""
    path = r"{0}/2016-08-19/account-settings/?$"
    assert not any("account-settings" in each for each in lambda_urls.url_paths), closed(path)

    def get_account_settings(self: LambdaResponse) -> str:
        functions = self.backend.list_functions()
        reserved = sum(int(each.reserved_concurrency or 0) for each in functions)
        limit = {
            "ConcurrentExecutions": CONCURRENCY,
            "UnreservedConcurrentExecutions": CONCURRENCY - reserved,
        }
        return json.dumps({"AccountLimit": limit})

    patch.setattr(LambdaResponse, "get_account_settings", get_account_settings, raising=False)
    patch.setitem(lambda_urls.url_paths, path, LambdaResponse.dispatch)


def data_apis(account_id: str) -> dict[str, bool]:
    """Whether the Data API of each cluster is on, by the cluster's ARN."""
    backend = rds_backends[account_id][REGION]
    found: dict[str, bool] = backend.__dict__.setdefault("data_apis", {})
    return found


def _switch_data_apis(patch: pytest.MonkeyPatch) -> None:
    """EnableHttpEndpoint and DisableHttpEndpoint."""
    for name, is_on in (("enable_http_endpoint", True), ("disable_http_endpoint", False)):
        assert not hasattr(RDSResponse, name), closed(name)

        def switch(self: Any, is_on: bool = is_on) -> ActionResult:
            arn = self.params["ResourceArn"]
            data_apis(self.current_account)[arn] = is_on
            return ActionResult({"ResourceArn": arn, "HttpEndpointEnabled": is_on})

        patch.setattr(RDSResponse, name, switch, raising=False)


def _record_statements(patch: pytest.MonkeyPatch) -> None:
    """The Data API answers from a queue and forgets what it was asked."""
    assert not hasattr(RDSDataServiceBackend, "statements"), closed("statements")
    execute = RDSDataServiceBackend.execute_statement

    def execute_and_note(self: Any, resource_arn: str, sql: str) -> Any:
        assert data_apis(self.account_id)[resource_arn], "the Data API of this cluster is off"
        self.__dict__.setdefault("statements", []).append(sql)
        return execute(self, resource_arn, sql)

    patch.setattr(RDSDataServiceBackend, "execute_statement", execute_and_note)


def _delete_networks(patch: pytest.MonkeyPatch) -> None:
    """A stack's route tables and endpoints outlive it, and keep its network from being deleted."""
    assert not hasattr(RouteTable, "delete"), closed("RouteTable.delete")
    assert not hasattr(VPCEndPoint, "delete"), closed("VPCEndPoint.delete")

    def delete_routes(self: RouteTable, account_id: str, region_name: str) -> None:
        backend = ec2_backends[account_id][region_name]
        for association in list[Any](self.associations):
            backend.disassociate_route_table(association)
        backend.delete_route_table(self.id)

    def delete_endpoint(self: VPCEndPoint, account_id: str, region_name: str) -> None:
        endpoints = ec2_backends[account_id][region_name].vpc_end_points
        for interface in endpoints.pop(self.id).network_interface_ids or []:
            ec2_backends[account_id][region_name].delete_network_interface(interface)

    patch.setattr(RouteTable, "delete", delete_routes, raising=False)
    patch.setattr(VPCEndPoint, "delete", delete_endpoint, raising=False)


def _hold_interfaces(patch: pytest.MonkeyPatch) -> None:
    """A function in a network has an interface in each subnet. Lambda removes one that no function
    uses, if the role that made it is still there."""
    create, find = LambdaBackend.create_function, EC2Backend.get_all_network_interfaces
    assert "NetworkInterface" not in str(create.__code__.co_names), closed("Lambda's interfaces")

    def create_and_join(self: Any, spec: Json) -> Any:
        function = create(self, spec)
        ec2 = ec2_backends[self.account_id][self.region_name]
        for subnet in spec.get("VpcConfig", {}).get("SubnetIds", []):
            groups = spec["VpcConfig"]["SecurityGroupIds"]
            interface = ec2.create_network_interface(ec2.get_subnet(subnet), [], None, groups)
            interface.__dict__ |= {"status": "in-use", "made_by": spec["Role"]}
        return function

    def find_after_lambda(self: Any, eni_ids: Any = None, filters: Any = None) -> Any:
        functions = lambda_backends[self.account_id][self.region_name].list_functions()
        used = {
            subnet
            for function in functions
            for subnet in (function.vpc_config or {}).get("SubnetIds", [])
        }
        roles = {role.arn for role in iam_backends[self.account_id]["aws"].roles.values()}
        for interface in list(self.enis.values()):
            is_unused = interface.subnet.id not in used
            if is_unused and getattr(interface, "made_by", None) in roles:
                del self.enis[interface.id]
        return find(self, eni_ids, filters)

    patch.setattr(LambdaBackend, "create_function", create_and_join)
    patch.setattr(EC2Backend, "get_all_network_interfaces", find_after_lambda)


def _refuse_roles_that_are_there(patch: pytest.MonkeyPatch) -> None:
    """A service-linked role that is there has an error of its own."""
    create = IAMBackend.create_service_linked_role
    assert "has been taken" not in str(create.__code__.co_consts), closed("service-linked roles")

    def create_or_refuse(self: Any, service_name: str, description: str, suffix: str) -> Any:
        paths = [role.path for role in self.roles.values()]
        if f"/aws-service-role/{service_name}/" in paths:
            raise InvalidInput(
                f"Service role name {service_name} has been taken in this account, please try a"
                " different suffix."
            )
        return create(self, service_name, description, suffix)

    patch.setattr(IAMBackend, "create_service_linked_role", create_or_refuse)


def _answer_plans(patch: pytest.MonkeyPatch) -> None:
    """GetAccountPlanState: the account is on the paid plan."""
    assert "freetier" not in list_of_moto_modules(), closed("freetier")
    dispatch = DomainDispatcherApplication.__call__

    def dispatch_or_answer(self: Any, environ: Json, start_response: Any) -> Any:
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("AWSFreeTierService."):
            return dispatch(self, environ, start_response)
        start_response("200 OK", [("Content-Type", "application/x-amz-json-1.0")])
        return [json.dumps({"accountId": "1", "accountPlanType": "PAID"}).encode()]

    patch.setattr(DomainDispatcherApplication, "__call__", dispatch_or_answer)


def _miss_keys_of_plans(patch: pytest.MonkeyPatch) -> None:
    """A key that is no longer in a usage plan has an error of its own. moto's server fails."""
    backend = APIGatewayBackend("us-east-1", "111111111111")
    backend.usage_plan_keys["gap"] = {}
    delete = APIGatewayBackend.delete_usage_plan_key
    assert fails(KeyError, backend.delete_usage_plan_key, "gap", "gap"), closed("usage plan keys")

    def delete_or_refuse(self: Any, usage_plan_id: str, key_id: str) -> None:
        if key_id not in self.usage_plan_keys.get(usage_plan_id, {}):
            raise ApiKeyNotFoundException()
        delete(self, usage_plan_id, key_id)

    patch.setattr(APIGatewayBackend, "delete_usage_plan_key", delete_or_refuse)


# --- resources that moto's CloudFormation skips ---------------------------------------------------

# Each with the property that holds its name.
STAND_INS = {
    "AWS::RDS::DBCluster": "DBClusterIdentifier",
    "AWS::RDS::DBClusterParameterGroup": "",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::SecretsManager::Secret": "",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::S3::BucketPolicy": "",
    "AWS::SNS::Subscription": "",
    "AWS::ElastiCache::User": "UserId",
    "AWS::ElastiCache::UserGroup": "UserGroupId",
    "AWS::ElastiCache::ServerlessCache": "ServerlessCacheName",
    "AWS::ElastiCache::SubnetGroup": "",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
}


class _StandIn:
    """Is there, has a name, and answers GetAtt with values of the shape AWS gives them."""

    def __init__(self, kind: str, name: str, properties: Json, account_id: str) -> None:
        self.kind = kind
        self.physical_resource_id = name
        self.type = f"AWS::{kind}"
        self.properties = properties
        self._account_id = account_id

    def get_cfn_attribute(self, attribute: str) -> str:
        name, account = self.physical_resource_id, self._account_id
        host = f"{name}.abc123.{REGION}"
        values = {
            "Endpoint": f"{host}.{'rds' if 'DBCluster' in self.kind else 'cache'}.test",
            "ReadEndpoint": f"ro-{host}.rds.test",
            "PrimaryEndPoint": f"master.{host}.cache.test",
            "DBClusterArn": f"arn:aws:rds:{REGION}:{account}:cluster:{name}",
            "DBClusterResourceId": "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "MasterUserSecret": (
                f"arn:aws:secretsmanager:{REGION}:{account}:secret:rds!cluster-1234-AbCdEf"
            ),
            "ARN": f"arn:aws:elasticache:{REGION}:{account}:serverlesscache:{name}",
            "Arn": f"arn:aws:elasticache:{REGION}:{account}:user:{name}",
        }
        return values[attribute.partition(".")[0]]  # moto cuts short forms at their second dot


def _create_cluster(properties: Json, account_id: str, region_name: str) -> None:
    arn = f"arn:aws:rds:{region_name}:{account_id}:cluster:{properties['DBClusterIdentifier']}"
    data_apis(account_id)[arn] = str(properties["EnableHttpEndpoint"]).lower() == "true"
    rds_backends[account_id][region_name].create_db_cluster(
        {
            "db_cluster_identifier": properties["DBClusterIdentifier"],
            "engine": properties["Engine"],
            "engine_version": properties["EngineVersion"],
            "master_username": properties["MasterUsername"],
            "manage_master_user_password": True,
            "deletion_protection": properties["DeletionProtection"] == "true",
        }
    )


def _create_secret(name: str, properties: Json, account_id: str, region_name: str) -> str:
    """Its ARN, by which CloudFormation knows it."""
    generate = properties["GenerateSecretString"]
    fields = json.loads(generate["SecretStringTemplate"])
    fields[generate["GenerateStringKey"]] = secrets.token_hex(20)
    backend = secretsmanager_backends[account_id][region_name]
    made = backend.create_secret(
        *(f"{name}-{secrets.token_hex(4)}", json.dumps(fields), None, None, [], None, None, []),
        force_overwrite=False,
    )
    return str(json.loads(made)["ARN"])


def _stand_in(patch: pytest.MonkeyPatch, resource_type: str, name_property: str) -> None:
    models = parsing.get_model_map()
    if resource_type == "AWS::RDS::DBInstance":  # it has one, for databases that are no clusters
        assert "aurora-mysql" not in DBInstance.default_engine_versions, closed(resource_type)
    else:
        assert resource_type not in models, closed(resource_type)
    kind = resource_type.removeprefix("AWS::")

    class Model(_StandIn):
        @staticmethod
        def has_cfn_attr(attr: str) -> bool:
            return True

        @classmethod
        def create_from_cloudformation_json(
            cls, name: str, definition: Json, account_id: str, region_name: str, **_: Any
        ) -> "Model":
            if kind == "RDS::DBCluster":
                _create_cluster(definition["Properties"], account_id, region_name)
            if kind == "SecretsManager::Secret":
                name = _create_secret(name, definition["Properties"], account_id, region_name)
            return cls(kind, name, definition["Properties"], account_id)

        @classmethod
        def update_from_cloudformation_json(
            cls,
            original_resource: Any,
            new_resource_name: str,
            cloudformation_json: Json,
            account_id: str,
            region_name: str,
        ) -> "Model":
            properties = cloudformation_json["Properties"]
            if kind == "RDS::DBCluster":
                cluster = rds_backends[account_id][region_name].clusters[new_resource_name]
                cluster.deletion_protection = properties["DeletionProtection"] == "true"
            return cls(kind, new_resource_name, properties, account_id)

        @staticmethod
        def delete_from_cloudformation_json(
            name: str, definition: Json, account_id: str, region_name: str
        ) -> None:
            if kind == "RDS::DBCluster":
                backend = rds_backends[account_id][region_name]
                backend.delete_db_cluster(name)
                for snapshot in list(backend.cluster_snapshots):
                    if name in snapshot:  # one of the same minute would be in the next one's way
                        del backend.cluster_snapshots[snapshot]
            if kind == "SecretsManager::Secret":
                secretsmanager_backends[account_id][region_name].delete_secret(name, None, True)

        def is_created(self) -> bool:
            return True

    patch.setitem(models, resource_type, Model)
    patch.setitem(parsing.get_name_type_map(), resource_type, name_property)
