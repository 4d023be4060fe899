"""Outputs of stacks of infra/template.yaml."""

# Of the default kind.
OUTPUTS = {
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupId": "sg-1",
    "DatabaseHost": "herocache-dev.rds.test",
    "DatabaseEngine": "mysql",
    "DatabaseArn": "arn:aws:rds:eu-west-1:123456789012:cluster:herocache-dev",
    "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!cluster-1",
    "DatabaseMinCapacity": "0",
    "DatabaseLogin": "iam",
    "DatabaseLoginArn": "arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-1/herocache",
    "IngestLoginArn": "arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-1/herocache_ingest",
    "CacheKind": "serverless",
    "CacheHost": "herocache-dev.cache.test",
    "CacheName": "herocache-dev",
    "CacheArn": "arn:aws:elasticache:eu-west-1:123456789012:serverlesscache:herocache-dev",
    "CacheUserArn": "arn:aws:elasticache:eu-west-1:123456789012:user:herocache-dev",
    "UploadBucket": "herocache-dev-123456789012-eu-west-1",
    "RangesBucket": "herocache-dev-ranges-123456789012-eu-west-1",
    "ApiLogRoleArn": "arn:aws:iam::123456789012:role/herocache-dev-ApiLogRole-1",
    "FailureQueueArn": "arn:aws:sqs:eu-west-1:123456789012:herocache-dev-failed",
}
# The owner's secret is another one.
_SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
BY_SECRET = {
    "DatabaseLogin": "secret",
    "DatabaseLoginArn": f"{_SECRET}FunctionsSecret-1-AbCdEf",
    "IngestLoginArn": f"{_SECRET}IngestSecret-1-AbCdEf",
}
# Over the Data API with a cache, and without one.
DATA_API = {
    **OUTPUTS,
    "DatabaseEngine": "dataapi",
    **BY_SECRET,
}
NO_CACHE = {"CacheHost", "CacheName", "CacheArn", "CacheUserArn"}
DATA_API_ALONE = {
    name: value for name, value in {**DATA_API, "CacheKind": "none"}.items() if name not in NO_CACHE
}
