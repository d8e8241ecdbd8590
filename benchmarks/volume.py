# ruff: noqa: RUF001 (the multiplication sign is how tables are read)
"""Bytes on disk: allocated blocks of all files after closing, so journal, indexes and free pages are all in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.graphs import label
from benchmarks.ours import disk_bytes, open_log
from benchmarks.payload import text
from benchmarks.peers import OURS, SQLITE_NORMAL
from benchmarks.runner import Job, Results, count
from benchmarks.table import Row, Sheet, at_most, judged, sheet_of

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS, LIST = "10,000 appends beside 1,000 channels of 1 kB", "2,000-message list growing through commit"
_DELTA = "chat on DeltaChannel"
_LIMITS = {"counter": 600, "chat": 500, "1 MB document stays": 700, "one entry of a 1 MB dict": 2000}


def channels(directory: Path, n: int) -> dict[str, Any]:
    """Appends that change one 8-byte number beside 1,000 channels of 1 kB; what stood there before is not counted."""
    with open_log(directory) as log:
        log.run("run").append({"number": 0.5, **{f"channel-{index}": text(1000, index) for index in range(1000)}})
    before = disk_bytes(directory)
    with open_log(directory) as log:
        run = log.run("run")
        for index in range(n):
            run.append({"number": index + 0.5})
    return {"bytes": (disk_bytes(directory) - before) / n, "grew": disk_bytes(directory) - before, "at_first": before}


def growing_list(directory: Path, n: int) -> dict[str, Any]:
    """A list of messages, of which each commit gets one more; found by `commit`, not told."""
    import msgpack

    with open_log(directory) as log:
        run, messages = log.run("run"), []
        for index in range(n):
            messages.append({"role": "user", "content": text(465, index), "id": index})
            run.commit({"messages": messages})
    appended = sum(len(msgpack.packb(message)) for message in messages)
    return {"bytes": disk_bytes(directory) / n, "factor": disk_bytes(directory) / appended}


def _sized(workload: str, saver: str, n: int) -> str:
    return f"{label(workload, saver)} × {n}"


def _lengths(*, quick: bool) -> dict[str, int]:
    """How many steps; what they add is less than a page each, so there are many.

    The second half of the long ones spans two snapshots of the large dict, which the short ones have no time for.
    """
    if quick:
        return {"counter": 240, "chat": 240, "1 MB document stays": 240, "one entry of a 1 MB dict": 160}
    return {"counter": 5000, "chat": 1000, "1 MB document stays": 1000, "one entry of a 1 MB dict": 1600}


def _runs(*, quick: bool) -> list[tuple[str, str, int]]:
    chat = _lengths(quick=quick)["chat"]
    found = [("chat", SQLITE_NORMAL, chat * k // 2) for k in ((1, 2) if quick else (1, 2, 4))]
    if not quick:
        found += [("chat", OURS, chat // 2), ("chat", OURS, chat)]
        found += [(workload, SQLITE_NORMAL, 100) for workload in _LIMITS]
        found += [(_DELTA, saver, chat) for saver in (OURS, SQLITE_NORMAL)]
    return found


def jobs(*, quick: bool) -> dict[str, Job]:
    """Ours at n and 2n steps, and beside it what SQLite's saver takes."""
    found = {
        _sized(workload, OURS, 2 * n): count("graphs.grown", workload=workload, n=n)
        for workload, n in _lengths(quick=quick).items()
    }
    for workload, saver, n in _runs(quick=quick):
        found[_sized(workload, saver, n)] = count("graphs.steps", workload=workload, saver=saver, n=n)
    found[CHANNELS] = count("volume.channels", n=10_000)
    found[LIST] = count("volume.growing_list", n=400 if quick else 2000)
    found["message"] = count("graphs.encoded_message")
    return found


def rows(found: Results) -> list[Row]:
    """Line 7, and issue 2's two."""
    made = []
    for workload, limit in _LIMITS.items():
        names = [name for name in found.runs if name.startswith(label(workload, OURS) + " × ")]
        made += _pair(found, workload, max(names, key=_length), limit)

    def beside() -> Row:
        note = f"{found.median(CHANNELS, 'grew') / 1e6:.2f} MB beside {found.median(CHANNELS, 'at_first') / 1e6:.2f} MB"
        return at_most("issue 2", CHANNELS + ": bytes a step", found.median(CHANNELS, "bytes"), 400, "B", note)

    def listed() -> Row:
        return at_most("issue 2", LIST + ": bytes on disk / bytes appended", found.median(LIST, "factor"), 3)

    made.append(judged(found, "issue 2", CHANNELS, (CHANNELS,), beside))
    made.append(judged(found, "issue 2", LIST, (LIST,), listed))
    return made


def _length(name: str) -> int:
    return int(name.rsplit(" × ", 1)[1])


def _pair(found: Results, workload: str, name: str, limit: float) -> list[Row]:
    n = _length(name) // 2

    def step() -> Row:
        """Between n and 2n steps: what the first state cost stands in the note, as the mean from the first step on."""
        message = found.median("message", "bytes") if workload == "chat" else 0
        note = f"steps {n:,} to {2 * n:,}; from the first one {found.median(name, 'bytes'):,.0f} B"
        note += f"; {found.median(name, 'manifests'):.0f} manifests and {found.median(name, 'snapshots'):.0f} snapshots"
        note += f"; the message is {message:.0f} B" if message else ""
        added = found.median(name, "added")
        return at_most("7", f"{workload}: bytes on disk a step", added, limit + message, "B", note)

    def flat() -> Row:
        value = found.ratio_within(name, "bytes", "first") * 2
        return at_most("7", f"{workload}: total(2n) / total(n)", value, 2.1, note=f"n = {n:,}")

    return [
        judged(found, "7", f"{workload}: bytes a step", (name, "message"), step),
        judged(found, "7", f"{workload}: flat", (name,), flat),
    ]


def sheets(found: Results) -> list[Sheet]:
    """Every run."""
    names = [name for name in found.runs if name != "message"]
    return [sheet_of(found, "Bytes on disk a step", names, {"bytes": ("bytes", "B"), "factor": ("factor", "×")})]
