"""Checks before `make infra` creates a stack: what would fail a quarter of an hour later."""

from collections.abc import Mapping

from botocore.exceptions import BotoCoreError, ClientError

from infra import before_deploy
from infra.account import Client, client, known_regions, quick_client, region
from infra.stage_files import Stage
from infra.terminal import Refused, say

# It has no machines for arm64 or for databases of today:
# https://wolfman.dev/posts/exclude-use1-az3/
OLD_ZONES = {"use1-az3"}
_ZONES = ("ZoneA", "ZoneB")
# Where the service of plans is, for all regions.
_PLANS_REGION = "us-east-1"
_DATA_API_REGIONS = (
    "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/"
    "Concepts.Aurora_Fea_Regions_DB-eng.Feature.Data_API.html"
)


def refuse_unprepared(stage: Stage, parameters: Mapping[str, str]) -> None:
    """Raises Refused where the stack or the functions could not be made. Nothing was created
    then."""
    _refuse_free_plan(quick_client("freetier", _PLANS_REGION))
    before_deploy.refuse_too_much_concurrency(client("lambda"), stage)
    _refuse_old_zones(client("ec2"), stage, parameters)
    if region() not in known_regions("rds-data"):
        say("region", f"is the RDS Data API for Aurora MySQL in {region()}? {_DATA_API_REGIONS}")


def _refuse_free_plan(plans: Client) -> None:
    """An account on the free plan may create an Aurora cluster only with Express Configuration,
    which is for PostgreSQL. Goes on where AWS does not say which plan it is."""
    try:
        found = plans.get_account_plan_state()
    except (BotoCoreError, ClientError):
        return
    if found["accountPlanType"] == "FREE":
        raise Refused(
            "this account is on AWS's free plan, which does not allow this database: change to the"
            " paid plan first, in the Billing console or with aws freetier upgrade-account-plan"
            " --account-plan-type PAID; what is left of its credits stays"
        )


def _refuse_old_zones(ec2: Client, stage: Stage, parameters: Mapping[str, str]) -> None:
    filters = [
        {"Name": "zone-type", "Values": ["availability-zone"]},
        {"Name": "state", "Values": ["available"]},
    ]
    found = ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"]
    zones = {each["ZoneName"]: each["ZoneId"] for each in found}
    chosen = [parameters.get(name) or zone for name, zone in zip(_ZONES, sorted(zones))]
    if not OLD_ZONES & {zones.get(name) for name in chosen}:
        return
    good = sorted(name for name, id in zones.items() if id not in OLD_ZONES)
    proposed = ", ".join(f'"{name}": "{zone}"' for name, zone in zip(_ZONES, good))
    raise Refused(
        f"one of the zones {', '.join(chosen)} cannot hold what the stage needs: put {proposed}"
        f" into the parameters of infra/{stage.name}.json"
    )
