"""From an AWS account to a running stage and back: `make infra`, `configure`, `deploy`, `destroy`.

The functions and the API are Chalice's, everything they stand on is `template.yaml`'s.
"""
