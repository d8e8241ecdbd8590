"""What a log is in a PostgreSQL database: one table of pairs, the statements on it, and how it is made.

Owns all SQL but that of the views. These are PostgreSQL's own, and a database that only speaks its protocol may lack
them: ``pg_advisory_xact_lock`` (commits of one run in line), ``xid8``, ``pg_snapshot_xmin`` and ``pg_control_system``
(the feed), functions in ``plpgsql`` (a commit in one round trip), arrays and ``unnest``. Tables, keys and conditions
are plain SQL.

```
 pairs   key, value; and the transaction that put it, of what is fed
 meta    format: of what is stored, which a release reads or refuses
         functions: which ones are there, and views; a newer release makes them anew
 done    commits of the last hour whose effect does not tell whether they were done
```
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import psycopg

from eventlog.errors import FormatError, StorageError
from eventlog.storage.base import FED
from eventlog.storage.postgres_views import views_of

if TYPE_CHECKING:
    from eventlog.storage.postgres_server import Connection, Place, Server

FORMAT: Final = 1
FUNCTIONS: Final = 4
_THERE: Final = "SELECT FROM pg_catalog.pg_class WHERE relname = 'meta' AND relnamespace = to_regnamespace(%s)"
_OLDEST: Final = 130_000
_FED: Final = FED[0]
PAGE_BYTES: Final = 1 << 20
"""A page of a scan ends with the pair that makes its values so long: they may have any size."""
_LIMIT: Final = "(SELECT $4::bigint)"
"""The planner must not know it. Where it guesses that a range holds fewer pairs than that, as it does of most ranges,
it would read the whole range and sort it, for every page of it. What ends nobody knows when, it reads by the index."""

_TABLES: Final = f"""
CREATE TABLE {{0}}.meta (name text PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE {{0}}.pairs (key bytea PRIMARY KEY, value bytea NOT NULL, txid xid8);
CREATE TABLE {{0}}.done (token bytea PRIMARY KEY, at timestamptz NOT NULL);
CREATE INDEX done_at ON {{0}}.done (at);
CREATE INDEX fed ON {{0}}.pairs (txid, key) WHERE txid IS NOT NULL;
INSERT INTO {{0}}.meta VALUES ('format', {FORMAT}), ('functions', 0);
"""

_FUNCTIONS: Final = f"""
CREATE OR REPLACE FUNCTION {{0}}.commit(
  counts bigint[], locks bigint[], keys bytea[], vals bytea[], gone bytea[], expected bytea[], wanted bytea[],
  tokens bytea[], durable boolean, ms bigint
) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
  before bigint[] := ARRAY[0, 0, 0, 0];
  upto bigint[];
  put_keys bytea[] := ARRAY[]::bytea[];
  put_vals bytea[] := ARRAY[]::bytea[];
  deleted bytea[] := ARRAY[]::bytea[];
  refused boolean;
  answer bytea := '';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'a log needs transactions that are READ COMMITTED, these are %',
      current_setting('transaction_isolation') USING HINT = 'ALTER ROLE ... SET default_transaction_isolation';
  END IF;
  IF durable <> (current_setting('synchronous_commit') <> 'off') THEN
    PERFORM set_config('synchronous_commit', CASE WHEN durable THEN 'on' ELSE 'off' END, true);
  END IF;
  IF ms > 0 THEN
    PERFORM set_config('lock_timeout', ms::text, true);
  END IF;
  FOR n IN 1..cardinality(tokens) LOOP
    refused := false;
    upto := ARRAY[before[1] + counts[4*n-3], before[2] + counts[4*n-2], before[3] + counts[4*n-1],
      before[4] + counts[4*n]];
    FOR i IN before[1]+1..upto[1] LOOP
      IF ms > 0 THEN
        PERFORM pg_advisory_xact_lock(locks[i]);
      ELSIF NOT pg_try_advisory_xact_lock(locks[i]) THEN
        refused := true;
        answer := answer || int4send(n) || int4send(0);
        EXIT;
      END IF;
    END LOOP;
    IF tokens[n] IS NOT NULL AND EXISTS (SELECT FROM {{0}}.done d WHERE d.token = tokens[n]) THEN
      refused := true;
    END IF;
    IF NOT refused THEN
      FOR i IN before[4]+1..upto[4] LOOP
        IF (SELECT p.value FROM {{0}}.pairs p WHERE p.key = expected[i]) IS DISTINCT FROM wanted[i] THEN
          refused := true;
          answer := answer || int4send(n) || int4send(length(expected[i])) || expected[i];
        END IF;
      END LOOP;
      IF NOT refused THEN
        put_keys := put_keys || keys[before[2]+1:upto[2]];
        put_vals := put_vals || vals[before[2]+1:upto[2]];
        deleted := deleted || gone[before[3]+1:upto[3]];
        IF tokens[n] IS NOT NULL THEN
          INSERT INTO {{0}}.done VALUES (tokens[n], now());
        END IF;
      END IF;
    END IF;
    before := upto;
  END LOOP;
  IF cardinality(array_remove(tokens, NULL)) > 0 THEN
    DELETE FROM {{0}}.done d WHERE d.token IN (
      SELECT o.token FROM {{0}}.done o WHERE o.at < now() - interval '1 hour' LIMIT 100 FOR UPDATE SKIP LOCKED
    );
  END IF;
  IF cardinality(deleted) > 0 THEN
    DELETE FROM {{0}}.pairs WHERE key = ANY(deleted);
  END IF;
  INSERT INTO {{0}}.pairs (key, value, txid)
    SELECT b.key, b.value, CASE WHEN get_byte(b.key, 0) = {_FED} THEN pg_current_xact_id() END
    FROM unnest(put_keys, put_vals) AS b(key, value)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, txid = excluded.txid;
  RETURN answer;
END $$;

CREATE OR REPLACE FUNCTION {{0}}.flush() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  UPDATE {{0}}.meta SET value = value WHERE name = 'format';
  RETURN 1;
END $$;

UPDATE {{0}}.meta SET value = {FUNCTIONS} WHERE name = 'functions';
"""


_OF_FEED: Final = """
concat_ws(' ',
  CASE WHEN NOT pg_is_in_recovery() THEN pg_snapshot_xmax(pg_current_snapshot())::text ELSE 'none' END,
  (SELECT system_identifier FROM pg_control_system()),
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  '{}'::regclass::oid)
"""
"""No transaction of that number has begun (a standby does not know), and then what names one table in the world: of
which cluster, which database of it, and which table there. A copy, however it was restored, is another one."""

_UNHEARD_OF: Final = "SELECT FROM {}.pairs WHERE txid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1"
_FED_ANEW: Final = (
    "UPDATE {}.pairs SET txid = pg_current_xact_id() WHERE txid >= pg_snapshot_xmax(pg_current_snapshot())"
)
"""A log that was dumped and restored brings the numbers of another cluster's transactions. Where this one's have not
got so far, what they put would be fed when they have, behind what is newer: so it is fed now, in key order."""


class Statements:
    """The statements on one log. Each takes a number first, and answers with rows of a number and two of ``bytea``.

    One of the rows has the number that it was given; whoever asks knows by it that this is the answer. Where there may
    be none, that is one more, of NULLs. What becomes of batches is one string of the number of each that was not
    written, the length of a key that differs, and that key, where the length is 0 if another transaction has a lock.

    Args:
        schema: the log's, whose name needs no escape within quotes.
    """

    def __init__(self, schema: str) -> None:
        pairs = f'"{schema}".pairs'

        def answering(rows: str) -> bytes:
            return f"SELECT $1::bigint, NULL::bytea, NULL::bytea UNION ALL ({rows})".encode()

        def pairs_in(order: str) -> str:
            return (
                "SELECT r.n, p.key, p.value FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS r(low, high, n) "
                f"CROSS JOIN LATERAL (SELECT key, value FROM {pairs} WHERE key >= r.low AND key < r.high "
                f"ORDER BY key{order} LIMIT {_LIMIT}) p ORDER BY r.n, p.key{order} LIMIT $4::bigint"
            )

        def page(order: str) -> bytes:
            return answering(
                "SELECT n, key, value FROM (SELECT n, key, value, "
                f"sum(octet_length(value)) OVER (ORDER BY n, key{order}) - octet_length(value) AS before "
                f"FROM ({pairs_in(order)}) s) w WHERE before < {PAGE_BYTES}"
            )

        self.get = answering(f"SELECT 0, key, value FROM {pairs} WHERE key = ANY($2::bytea[])")
        self.forward = page("")
        self.backward = page(" DESC")
        self.first = answering(pairs_in(""))  # of one there is nothing to add up, and it is asked for most often
        self.last = answering(pairs_in(" DESC"))
        self.feed = (
            f"SELECT $1::bigint, NULL::bytea, convert_to({_OF_FEED.format(pairs)}, 'UTF8') UNION ALL "
            f"(SELECT p.txid::text::bigint, p.key, NULL FROM {pairs} p WHERE p.txid IS NOT NULL "
            "AND (p.txid, p.key) > ($2::text::xid8, $3::bytea) AND p.txid < pg_snapshot_xmin(pg_current_snapshot()) "
            "ORDER BY p.txid, p.key LIMIT $4::bigint)"
        ).encode()
        self.commit = (
            f'SELECT $1::bigint, "{schema}".commit($2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], '
            "$6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::boolean, $11::bigint), NULL::bytea"
        ).encode()
        self.flush = f'SELECT $1::bigint, int8send("{schema}".flush()), NULL::bytea'.encode()
        self.is_flushed = (
            b"SELECT $1::bigint, int4send((pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn())::int), "
            b"NULL::bytea"
        )
        self.size = f"SELECT $1::bigint, int8send(pg_total_relation_size('{pairs}')), NULL::bytea".encode()


def open_schema(server: Server, place: Place, *, readonly: bool, is_full: bool) -> None:
    """See that the log is there and of this format; unless `readonly`, make it, and bring it up to date.

    Raises:
        FormatError: no log there, something else, or a newer format.
        StorageError: the server is too old, or does not give what `is_full` asks for; or refuses.
    """
    quoted = f'"{place.schema}"'
    with server.connect() as connection:
        try:
            _check_server(connection, place, is_full=is_full and not readonly)
            found = _found(connection, quoted)
            if readonly and not found:
                raise FormatError(f"no log at {place.shown}; check the URL, or open it without readonly to create one")
            if not readonly and _is_wanting(connection, quoted, found):
                found = _made(connection, place, quoted)
        except psycopg.Error as error:
            raise server.translated(error) from error
    if found.get("format") != FORMAT:
        raise FormatError(
            f"{place.shown} holds a log of format {found.get('format')}, this release reads format {FORMAT}; "
            "use the release that wrote it"
        )


def _check_server(connection: Connection, place: Place, *, is_full: bool) -> None:
    row: Any = connection.execute("SELECT current_setting('fsync'), current_setting('full_page_writes')").fetchone()
    if connection.info.server_version < _OLDEST:
        raise StorageError(f"{place.shown}: PostgreSQL is older than 13; bring the server up to date")
    if is_full and row != ("on", "on"):
        raise StorageError(
            f'{place.shown}: synchronous="full" needs fsync=on and full_page_writes=on, and the server has '
            f'fsync={row[0]}, full_page_writes={row[1]}; set them, or ask for "normal"'
        )


def _found(connection: Connection, quoted: str) -> dict[str, int]:
    """What the log says of itself; empty if there is none."""
    if connection.execute(_THERE, [quoted]).fetchone() is None:
        return {}
    try:
        found: dict[str, Any] = dict(connection.execute(f"SELECT name, value FROM {quoted}.meta").fetchall())
    except psycopg.errors.UndefinedColumn:
        found = {}
    if not all(type(found.get(name)) is int for name in ("format", "functions")):
        raise FormatError(f"the schema {quoted} holds something else than a log; give another ?schema=NAME")
    return found


def _is_wanting(connection: Connection, quoted: str, found: dict[str, int]) -> bool:
    """Whether the log is to be made, or its functions or its feed are: never those of a newer format."""
    if not found or found["format"] != FORMAT:
        return not found
    return found["functions"] < FUNCTIONS or _is_from_elsewhere(connection, quoted)


def _is_from_elsewhere(connection: Connection, quoted: str) -> bool:
    return connection.execute(_UNHEARD_OF.format(quoted).encode()).fetchone() is not None


def _made(connection: Connection, place: Place, quoted: str) -> dict[str, int]:
    """Make what is missing: one process at a time, all or nothing."""
    lock = int.from_bytes(blake2b(quoted.encode(), digest_size=8).digest(), "big", signed=True)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
        found = _found(connection, quoted)
        if not _is_wanting(connection, quoted, found):  # another process was first
            return found
        if not found:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}".encode())
            try:
                connection.execute(_TABLES.format(quoted).encode())
            except psycopg.errors.DuplicateTable as error:
                raise FormatError(
                    f"{place.shown} holds something else than a log; give another ?schema=NAME"
                ) from error
        connection.execute(views_of(quoted).encode())
        connection.execute(_FUNCTIONS.format(quoted).encode())
        connection.execute(_FED_ANEW.format(quoted).encode())
        return _found(connection, quoted)
