"""Reports what the app says of settings before anything is connected.

`make adopt` runs it in a process of its own. Standard input: the settings, a JSON object. Standard
output: a JSON object with `names`, all settings of the app, and `rejected`, what is wrong with each
that it cannot use. No text shows a password.
"""

import json
import re
import sys
from typing import Any

from chalicelib import config
from chalicelib.errors import ConfigurationError

# In place of what is missing, while the rest is checked.
_STAND_INS = {"DB_HOST": "a", "DB_NAME": "a", "DB_USER": "a", "DB_PASS": "a", "API_AUTH": "none"}


def report(settings: dict[str, str]) -> dict[str, Any]:
    """What the module says. The app names one setting at a time, so each is left out in turn."""
    left = {**_STAND_INS, **settings}
    if "DB_SECRET_ARN" in left:
        left["DB_PASS"] = ""
    rejected: dict[str, str] = {}
    while True:
        try:
            config.Settings.from_environment(left)
        except ConfigurationError as error:
            name = re.split(r"\W", str(error), maxsplit=1)[0]
            if name in rejected or not left.get(name):
                raise  # the text names no setting that can be left out
            rejected[name] = str(error)
            left = {**left, name: _STAND_INS.get(name, "")}
        else:
            break
    names = [value for name, value in vars(config).items() if name.isupper() and name == value]
    return {"names": names, "rejected": rejected}


if __name__ == "__main__":
    json.dump(report(json.load(sys.stdin)), sys.stdout)
