"""One JSON line in, one out. Between requests the process sleeps in a read."""

import json
import sys
import traceback


def serve(methods):
    """methods: name -> function(**parameters) -> something that JSON can hold."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"reply": methods[request["method"]](**request["parameters"])}
        except Exception:  # the caller shows it; the process goes on
            reply = {"error": traceback.format_exc(limit=8)}
        print(json.dumps(reply, separators=(",", ":")), flush=True)


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
