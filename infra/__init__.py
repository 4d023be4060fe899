"""Creates and removes a stage in an AWS account: `make infra`, `configure`, `deploy`, `destroy`.
Looks into it: `make sql`, `logs`, `report`.

Chalice makes the functions and the API. `template.yaml` makes everything that they need.
`commands` is the place to start.
"""
