"""The program that data_api.py starts: the service in local/data_api on the socket that it got."""

import os
import signal

from local.data_api.database import Database
from local.data_api.faults import Control, Faults
from local.data_api.http_server import DataApiServer, Service
from local.data_api.limits import Limits
from local.data_api.operations import Identity, Operations
from local.data_api.service_model import ServiceModel
from local.data_api.transactions import Clock, Transactions
from local.machine import LISTENER
from local.servers.data_api import CLUSTER_ARN


def end(*_: object) -> None:
    """Ends the process in order on SIGTERM."""
    raise SystemExit(0)


def main() -> None:
    """Serves until told to stop. What is not committed then is rolled back by the database."""
    signal.signal(signal.SIGTERM, end)
    limits, clock, model, faults = Limits(), Clock(), ServiceModel(), Faults()
    transactions = Transactions(limits, clock)
    identity = Identity(CLUSTER_ARN, os.environ["DB_SECRET_ARN"])
    operations = Operations(model, identity, Database(dict(os.environ)), transactions, limits)
    control = Control(faults, limits, clock, transactions)
    service = Service(model, operations, transactions, faults, limits, control)
    DataApiServer(int(os.environ.pop(LISTENER)), service).serve_forever()


if __name__ == "__main__":
    main()
