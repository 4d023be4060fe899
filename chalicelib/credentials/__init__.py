"""Who the service is to its servers. What other packages may use:

database_identity   the credential provider for the database: an `Identity`, which gives a `Login`
cache_identity      the credential provider for Redis
STAGES              the versions of a secret that are tried
"""

from chalicelib.credentials.identity import (
    STAGES,
    Identity,
    Login,
    cache_identity,
    database_identity,
)

__all__ = ["STAGES", "Identity", "Login", "cache_identity", "database_identity"]
