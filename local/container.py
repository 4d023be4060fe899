"""The process that function.py starts: calls a function of app.py once for each line that comes in.

A call is a line of JSON on standard input, its reply a line on standard output. What the app
prints goes to the log instead. When the input ends, so does the process, at once: nobody is there
any more who would hear the reply.
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
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    while True:
        print(json.dumps(reply_to(json.loads(lines.get()))), file=replies, flush=True)


def read_lines(lines: "queue.SimpleQueue[str]") -> None:
    """Also while the function works, so that it never outlives whoever started it."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def reply_to(call: Any) -> dict[str, Any]:
    """What the function returned, or why it failed; the whole traceback is in the log."""
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
