"""The user and the password, or token, with which the service logs in to its servers.

What other packages may use:

database_credentials   makes the CredentialProvider of the database, which gives a Login
cache_credentials      makes the credential provider of Redis
STAGES                 the versions of a secret that are tried
"""

from chalicelib.credentials.providers import (
    STAGES,
    CredentialProvider,
    Login,
    cache_credentials,
    database_credentials,
)

__all__ = ["STAGES", "CredentialProvider", "Login", "cache_credentials", "database_credentials"]
