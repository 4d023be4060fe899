"""Aurora MySQL by way of the RDS Data API: all that knows boto3's client `rds-data`.

Connector        opens connections to the cluster that the settings name
"""

from chalicelib.db.data_api.connector import Connector

__all__ = ["Connector"]
