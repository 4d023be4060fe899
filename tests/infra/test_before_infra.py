"""What would fail a quarter of an hour later is found before anything is created."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from infra import before_infra, service_linked_roles
from infra.stage_files import Stage
from infra.terminal import Refused

ZONES = {"us-east-1a": "use1-az6", "us-east-1b": "use1-az3", "us-east-1c": "use1-az1"}


class Account:
    """Answers each question of the checks; every field may be changed."""

    def __init__(self) -> None:
        self.plan: str | Exception = "PAID"
        self.limit = 1000
        self.zones = {"us-east-1c": "use1-az1", "us-east-1a": "use1-az6"}
        self.region = "us-east-1"

    def get_account_plan_state(self) -> dict[str, str]:
        if isinstance(self.plan, Exception):
            raise self.plan
        return {"accountPlanType": self.plan}

    def get_account_settings(self) -> dict[str, Any]:
        names = ("ConcurrentExecutions", "UnreservedConcurrentExecutions")
        return {"AccountLimit": dict.fromkeys(names, self.limit)}

    def get_function_concurrency(self, FunctionName: str) -> dict[str, int]:
        raise refusal("ResourceNotFoundException")

    def describe_availability_zones(self, Filters: Any) -> dict[str, Any]:
        found = [{"ZoneName": name, "ZoneId": id} for name, id in self.zones.items()]
        return {"AvailabilityZones": found}


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "any")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    account = Account()
    monkeypatch.setattr(before_infra, "client", lambda _: account)
    monkeypatch.setattr(before_infra, "quick_client", lambda *_: account)
    monkeypatch.setattr(before_infra, "region", lambda: account.region)
    monkeypatch.setattr(before_infra, "known_regions", lambda _: ["us-east-1"])
    return account


def check(stage: str = "dev", **parameters: str) -> None:
    before_infra.refuse_unprepared(Stage(stage), parameters)


def test_an_account_on_the_free_plan_is_told_what_to_do(account: Account) -> None:
    account.plan = "FREE"
    with pytest.raises(Refused, match="upgrade-account-plan --account-plan-type PAID"):
        check()


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDeniedException"),
        refusal("ResourceNotFoundException"),
        EndpointConnectionError(endpoint_url="https://freetier.us-east-1.amazonaws.com"),
    ],
)
def test_a_plan_that_nobody_tells_keeps_nobody_from_going_on(
    account: Account, error: Exception
) -> None:
    account.plan = error
    check()


def test_a_new_account_can_run_dev_and_is_told_what_prod_needs(account: Account) -> None:
    account.limit = 10
    check("dev")
    with pytest.raises(Refused, match=r"has 0 to give: ask for 234 "):
        check("prod")
    account.limit = 234
    check("prod")


def test_a_zone_that_lacks_what_the_stage_needs_is_named_with_a_better_one(
    account: Account,
) -> None:
    account.zones = ZONES
    proposal = (
        r'"ZoneA": "us-east-1a", "ZoneB": "us-east-1c" into the parameters of infra/dev\.json'
    )
    with pytest.raises(Refused, match=proposal):
        check()
    check(ZoneA="us-east-1a", ZoneB="us-east-1c")
    with pytest.raises(Refused, match=proposal):
        check(ZoneA="us-east-1b", ZoneB="us-east-1c")


def test_a_region_that_boto3_does_not_know_is_only_asked_about(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    check()
    assert capsys.readouterr().out == ""
    account.region = "eu-north-1"
    check()
    assert "RDS Data API for Aurora MySQL in eu-north-1?" in capsys.readouterr().out


# --- service-linked roles -------------------------------------------------------------------------


def roles(answers: dict[str, Exception | None], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Makes the roles, where AWS answers so by service. Returns how long was waited."""
    waits: list[float] = []
    monkeypatch.setattr(service_linked_roles, "time", SimpleNamespace(sleep=waits.append))

    def create(AWSServiceName: str) -> None:
        if error := answers[AWSServiceName]:
            raise error

    iam = SimpleNamespace(create_service_linked_role=create)
    service_linked_roles.create(iam, answers)
    return waits


TAKEN = "Service role name AWSServiceRoleForRDS has been taken in this account"


def test_a_new_role_gets_time_to_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = refusal("InvalidInput", TAKEN)
    assert roles({"a": None, "b": None}, monkeypatch) == [service_linked_roles.SETTLE_SECONDS]
    assert roles({"a": taken, "b": None}, monkeypatch) == [service_linked_roles.SETTLE_SECONDS]
    assert roles({"a": taken, "b": taken}, monkeypatch) == []


def test_somebody_who_may_not_make_roles_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roles({"rds.amazonaws.com": refusal("AccessDenied")}, monkeypatch) == []
    assert "rds.amazonaws.com: you may not make its role" in capsys.readouterr().out


def test_another_error_of_a_role_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientError, match="InvalidInput"):
        roles({"rds.amazonaws.com": refusal("InvalidInput", "no such service")}, monkeypatch)
