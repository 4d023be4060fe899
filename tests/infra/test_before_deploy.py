"""What `make deploy` looks at before it changes anything."""

import boto3
import pytest
from botocore.stub import Stubber

from infra import before_deploy
from infra.stage_files import Stage
from infra.terminal import Refused

ACCOUNT = "111122223333"


def test_a_bucket_of_another_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 refuses where the owner is another: nothing of a row goes there."""
    stage = Stage("dev")
    environment = {"UPLOAD_BUCKET": "uploads", "BUCKET_OWNER": ACCOUNT}
    monkeypatch.setattr(Stage, "environment", environment)
    s3 = boto3.client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    asked = {"Bucket": "uploads", "ExpectedBucketOwner": ACCOUNT}
    with Stubber(s3) as stubbed:
        stubbed.add_client_error("head_bucket", "403", "Forbidden", expected_params=asked)
        stubbed.add_response("head_bucket", {}, asked)

        with pytest.raises(Refused, match=r"the bucket uploads \(UPLOAD_BUCKET\) cannot be used"):
            before_deploy.refuse_missing_bucket(s3, stage, "UPLOAD_BUCKET")

        before_deploy.refuse_missing_bucket(s3, stage, "UPLOAD_BUCKET")
