"""MySQL and MariaDB by way of PyMySQL: all that knows this driver.

Connector        opens connections to the server that the settings name
"""

from chalicelib.db.mysql.connector import Connector

__all__ = ["Connector"]
