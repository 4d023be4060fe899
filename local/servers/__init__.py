"""Real servers on loopback, each a process with a home folder of its own.

Start one with `with MariaDB(folder) as database:`, or with its methods `start` and `stop`.
"""

from local.servers.app import App
from local.servers.data_api import DataApi
from local.servers.mariadb import MariaDB
from local.servers.redis import Redis
from local.servers.s3 import S3
from local.servers.server import Server, ServerError

__all__ = ["S3", "App", "DataApi", "MariaDB", "Redis", "Server", "ServerError"]
