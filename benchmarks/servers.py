"""A log on PostgreSQL: a superstep beside LangGraph's own saver, and appends beside a bare loop of the same bytes.

All on one server of its own for each measurement, with the settings that it comes with: a commit waits for the disk.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.graphs import compiled, label
from benchmarks.peers import OURS_POSTGRES, POSTGRES
from benchmarks.runner import Job, Results, job
from benchmarks.table import Row, Sheet, at_least, at_most, judged, sheet_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_THREADS = 8
_APPENDS = {1: "one run", 100: "100 runs at once"}
_TRIPS = "round trips a superstep"
_BARE = (
    "WITH moved AS (UPDATE heads SET value = %s WHERE key = %s AND value = %s RETURNING key) "
    "INSERT INTO events SELECT %s, %s FROM moved"
)


def trips(directory: Path, workload: str, n: int) -> dict[str, Any]:
    """How often ours asks the server, each superstep, once it goes."""
    from eventlog.storage.postgres_server import Server

    asked = 0
    ask = Server.ask

    def counted(server: Server, statement: str, arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(server, statement, arguments)

    Server.ask = counted  # type: ignore[method-assign]
    config: Any = {"configurable": {"thread_id": "thread"}, "recursion_limit": 2 * n + 10}
    found = []
    with peers.opened(OURS_POSTGRES, directory) as opened:
        for steps in (n, 2 * n):
            graph, given = compiled(workload, opened.saver, steps, [])
            config["configurable"]["thread_id"] = f"thread of {steps}"
            before = asked
            graph.invoke(given, config, durability="sync")
            found.append(asked - before)
    return {"trips": (found[1] - found[0]) / n}


def appends(directory: Path, runs: int, n: int) -> dict[str, Any]:
    """Events a second of `runs` runs, then of the bare loop: a conditional update of a head and an insert."""
    from eventlog import EventLog

    with peers.postgres(directory) as uri:
        with EventLog.open(uri) as log:
            handles = [log.run(f"run-{index}") for index in range(runs)]
            for handle in handles:
                handle.append({"number": 0.5})
            took = _at_once(runs, lambda index: [handles[index].append({"number": 0.5 + k}) for k in range(n // runs)])
        bare = _bare(uri, runs, n // runs)
    return {"events": n / took, "bare": n / bare}


def _at_once(runs: int, work: Callable[[int], object]) -> float:
    """Seconds until the work of all runs is done, by as many threads as have something to do."""
    with ThreadPoolExecutor(min(runs, _THREADS)) as pool:
        began = time.perf_counter()
        list(pool.map(work, range(runs)))
        return time.perf_counter() - began


def _bare(uri: str, runs: int, n: int) -> float:
    """Seconds of the bare loop, with keys and values as long as the log's own."""
    from psycopg_pool import ConnectionPool

    options = {"autocommit": True, "prepare_threshold": None}
    with ConnectionPool(uri, min_size=_THREADS, max_size=_THREADS, kwargs=options) as pool:
        pool.wait()
        with pool.connection() as connection:
            longest = "SELECT key, value FROM eventlog.pairs WHERE key >= %s AND key < %s LIMIT 1"
            ((head, end),) = connection.execute(longest, [b"H", b"I"]).fetchall()
            ((event, record),) = connection.execute(longest, [b"E", b"F"]).fetchall()
            for table in ("heads", "events"):
                connection.execute(f"CREATE TABLE {table} (key bytea PRIMARY KEY, value bytea NOT NULL)")
            for run in range(runs):
                connection.execute("INSERT INTO heads VALUES (%s, %s)", [_numbered(head, run), _numbered(end, 0)])

        def loop(run: int) -> None:
            key, place = _numbered(head, run), _numbered(event, run)[:-4]
            for k in range(n):
                said = [_numbered(end, k + 1), key, _numbered(end, k), place + k.to_bytes(4, "big"), record]
                with pool.connection() as connection:
                    connection.execute(_BARE, said)

        return _at_once(runs, loop)


def _numbered(of: bytes, number: int) -> bytes:
    """As long as `of`; its first byte, and a number in the eight after it."""
    return of[:1] + number.to_bytes(8, "big") + of[9:]


def jobs(*, quick: bool) -> dict[str, Job]:
    """Both savers on the same graphs, and the appends."""
    n = 200 if quick else 1000
    found = {
        label(workload, saver): job("graphs.steps", workload=workload, saver=saver, n=n)
        for workload in ("counter", "chat")
        for saver in (OURS_POSTGRES, POSTGRES)
    }
    found[_TRIPS] = job("servers.trips", workload="chat", n=50)
    for runs, name in _APPENDS.items():
        found[name] = job("servers.appends", runs=runs, n=1000 if quick else 5000)
    return found


def rows(found: Results) -> list[Row]:
    """Issue 5's lines 5 and 6."""
    ours, theirs = (label("chat", saver) for saver in (OURS_POSTGRES, POSTGRES))

    def rate() -> Row:
        note = f"{found.median(ours, 'late_us'):,.0f} µs beside {found.median(theirs, 'late_us'):,.0f} µs"
        measure = "PostgreSQL, chat: rate of the last supersteps / PostgresSaver's"
        return at_least("issue 5", measure, found.ratio(theirs, ours, "late_us"), 3, note=note)

    def size() -> Row:
        note = f"{found.median(ours, 'bytes'):,.0f} B a step beside {found.median(theirs, 'bytes'):,.0f} B"
        measure = "PostgreSQL, chat: PostgresSaver's bytes / ours"
        return at_least("issue 5", measure, found.ratio(theirs, ours, "bytes"), 50, note=note)

    made = [
        judged(found, "issue 5", "PostgreSQL, chat: rate", (ours, theirs), rate),
        judged(found, "issue 5", "PostgreSQL, chat: bytes", (ours, theirs), size),
        judged(found, "issue 5", _TRIPS, (_TRIPS,), lambda: _trips_row(found)),
    ]
    return made + [
        judged(found, "issue 5", name, (name,), lambda name=name: _appends_row(found, name))  # type: ignore[misc]
        for name in _APPENDS.values()
    ]


def _trips_row(found: Results) -> Row:
    return at_most("issue 5", f"PostgreSQL, chat: {_TRIPS}", found.median(_TRIPS, "trips"), 2, "")


def _appends_row(found: Results, name: str) -> Row:
    note = f"{found.median(name, 'events'):,.0f} events/s beside {found.median(name, 'bare'):,.0f}"
    measure = f"PostgreSQL, {name}: events a second / a bare loop's"
    return at_least("issue 5", measure, found.ratio_within(name, "events", "bare"), 0.6, note=note)


def sheets(found: Results) -> list[Sheet]:
    """All of it."""
    columns = {
        "a superstep": ("step_us", "µs"),
        "the last ones": ("late_us", "µs"),
        "bytes a step": ("bytes", "B"),
        "round trips": ("trips", ""),
        "events a second": ("events", ""),
        "bare loop": ("bare", ""),
    }
    return [sheet_of(found, "PostgreSQL", found.runs, columns)]
