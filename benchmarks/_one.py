"""Runs one measurement: ``python -m benchmarks._one MODULE.FUNCTION '{"argument": 1}'`` prints one line of JSON.

With ``--serve`` it reads such pairs as JSON lines and runs each in a forked child and a directory of its own:
the same isolation, without the imports every time.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import FAMILIES, AbsentError

_IMPORTED = (
    *("eventlog", "savers.langgraph", "langgraph.graph", "langgraph.checkpoint.sqlite", "lmdb._envid"),
    *("langchain_core.tracers.context", "langchain_core.tracers.run_collector", "langchain_core.tracers.stdout"),
    *(f"benchmarks.{name}" for name in FAMILIES),
)
"""What a measurement imports, sooner or later."""


def measure(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run ``module.function(directory, **arguments)`` in a fresh directory, removed afterwards."""
    module, function = name.split(".")
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIRECTORY")))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(directory))  # where PostgreSQL's servers put what they need
    try:
        return dict(getattr(importlib.import_module(f"benchmarks.{module}"), function)(directory, **arguments))
    except AbsentError as absent:
        return {"absent": str(absent)}
    except ModuleNotFoundError as missing:
        return {"absent": f"{missing.name} is not installed"}
    except Exception as error:  # noqa: BLE001 (a row that fails is a row that says so)
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def serve() -> None:
    """Fork a child for each line read; nothing is opened in this process."""
    for name in _IMPORTED:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            name, arguments = json.loads(line)
            print(json.dumps(measure(name, arguments)), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            print(json.dumps({"failed": "the process died"}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))))
