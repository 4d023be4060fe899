"""The process that container.py starts: it calls a function of app.py for each line it reads.

A call is a line of JSON on standard input; its reply is a line on standard output. What the app
prints goes to the log. When the input ends, the process ends at once, because nobody reads the
reply.
"""

import importlib
import json
import logging
import os
import queue
import sys
import threading
from typing import Any

log = logging.getLogger("container")


def main() -> None:
    """Serves until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    while True:
        print(json.dumps(reply_to(json.loads(lines.get()))), file=replies, flush=True)


def read_lines(lines: "queue.SimpleQueue[str]") -> None:
    """Reads also while the function works, so that the process ends with its parent."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def reply_to(call: Any) -> dict[str, Any]:
    """What the function returned, or why it failed. The traceback is in the log."""
    try:
        app = importlib.import_module("app")
        # Chalice's name for the function behind the API, which is the app itself.
        function = app.app if call["function"] == "api_handler" else getattr(app, call["function"])
        return {"result": function(call["event"], None)}
    except Exception as error:
        log.exception("the function raised")
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
