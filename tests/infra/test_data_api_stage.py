"""A stage over the RDS Data API without a cache, on an emulated AWS."""

from chalicelib.config import DbEngine, Settings
from tests.support.deployment import FUNCTIONS, NAME
from tests.support.stage_life import Life, ShortLife


def test_a_stage_over_the_data_api_without_a_cache_needs_no_network(
    data_api_life: ShortLife,
) -> None:
    functions = data_api_life.account["functions"]
    assert set(functions) == set(FUNCTIONS.values())
    for function in functions.values():
        network = function.get("VpcConfig", {})
        assert not network.get("SubnetIds")
        assert not network.get("SecurityGroupIds")
    assert not {"subnet_ids", "security_group_ids"} & data_api_life.stage.keys()


def test_the_app_takes_the_settings_of_a_stage_over_the_data_api(
    data_api_life: ShortLife,
) -> None:
    variables = data_api_life.stage["environment_variables"]
    settings = Settings.from_environment(variables)

    for name, function in data_api_life.account["functions"].items():
        found = function["Environment"]["Variables"]
        if name == FUNCTIONS["ingest"]:
            assert found["DB_SECRET_ARN"] != variables["DB_SECRET_ARN"]
            found = {**found, "DB_SECRET_ARN": variables["DB_SECRET_ARN"]}
        assert found == variables
    assert settings.db_engine is DbEngine.DATA_API
    assert settings.db_cluster_arn.endswith(f":cluster:{NAME}")
    assert settings.redis_url == ""


def test_the_data_api_is_off_where_no_function_uses_it(
    life: Life, data_api_life: ShortLife
) -> None:
    assert life.account["data_apis"] == [False]
    assert "the RDS Data API is off again" in life.first["infra"]
    assert data_api_life.account["data_apis"] == [True]


def test_no_function_can_log_in_as_the_owner_of_the_database(data_api_life: ShortLife) -> None:
    """Whoever runs code in one could drop the tables, or make users."""
    users = {each["arn"]: each["username"] for each in data_api_life.account["secrets"]}
    of_functions = {
        name: function["Environment"]["Variables"]["DB_SECRET_ARN"]
        for name, function in data_api_life.account["functions"].items()
    }
    for name, arn in of_functions.items():
        expected = "herocache_ingest" if name == FUNCTIONS["ingest"] else "herocache"
        assert users[arn] == expected
        role = NAME + "-api_handler" * (name == NAME) + name.removeprefix(NAME)
        [policy] = data_api_life.account["roles"][role]
        [readable] = [s["Resource"] for s in policy["Statement"] if s["Sid"] == "DatabaseLogin"]
        assert readable == arn, "one secret, and not the owner's"
    passwords = {each["username"]: each["password"] for each in data_api_life.account["secrets"]}
    for user, password in passwords.items():
        login = f"ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL"
        assert login in data_api_life.statements
        assert password not in str(data_api_life.said)


def test_no_certificates_are_fetched_for_a_stage_without_connections(
    data_api_life: ShortLife,
) -> None:
    assert "certificates" not in data_api_life.said["configure"]
    assert ".chalice/config.json: written" in data_api_life.said["configure"]


def test_nothing_is_left_of_a_stage_over_the_data_api(
    data_api_life: ShortLife, cached_data_api_life: ShortLife
) -> None:
    for life in (data_api_life, cached_data_api_life):
        assert {kind: what for kind, what in life.left.items() if what} == {}


def test_with_a_cache_its_functions_are_in_the_network_of_the_cache(
    cached_data_api_life: ShortLife,
) -> None:
    life = cached_data_api_life
    settings = Settings.from_environment(life.stage["environment_variables"])
    assert settings.db_engine is DbEngine.DATA_API
    assert settings.redis_url.startswith("rediss://")
    assert len(life.account["functions"]) == len(FUNCTIONS)
    for function in life.account["functions"].values():
        assert function["VpcConfig"]["SubnetIds"] == life.stage["subnet_ids"]
        assert function["VpcConfig"]["SecurityGroupIds"] == life.stage["security_group_ids"]
    for role, content in life.policies.items():
        assert life.account["roles"][role] == [content]
