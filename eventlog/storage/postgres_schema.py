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
FUNCTIONS: Final = 2
_THERE: Final = "SELECT FROM pg_catalog.pg_class WHERE relname = 'meta' AND relnamespace = to_regnamespace(%s)"
_OLDEST: Final = 130_000
_FED: Final = FED[0]

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
  locks bigint[], keys bytea[], vals bytea[], gone bytea[], expected bytea[], wanted bytea[], token bytea,
  durable boolean, ms int
) RETURNS bytea[] LANGUAGE plpgsql AS $$
DECLARE
  each bigint;
  differing bytea[];
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'a log needs transactions that are READ COMMITTED, these are %',
      current_setting('transaction_isolation') USING HINT = 'ALTER ROLE ... SET default_transaction_isolation';
  END IF;
  IF durable <> (current_setting('synchronous_commit') <> 'off') THEN
    PERFORM set_config('synchronous_commit', CASE WHEN durable THEN 'on' ELSE 'off' END, true);
  END IF;
  PERFORM set_config('lock_timeout', ms::text, true);
  FOREACH each IN ARRAY locks LOOP
    PERFORM pg_advisory_xact_lock(each);
  END LOOP;
  IF token IS NOT NULL AND EXISTS (SELECT FROM {{0}}.done d WHERE d.token = commit.token) THEN
    RETURN NULL;
  END IF;
  FOR i IN 1..cardinality(expected) LOOP
    IF (SELECT p.value FROM {{0}}.pairs p WHERE p.key = expected[i]) IS DISTINCT FROM wanted[i] THEN
      differing := array_append(differing, expected[i]);
    END IF;
  END LOOP;
  IF differing IS NOT NULL THEN
    RETURN differing;
  END IF;
  IF token IS NOT NULL THEN
    DELETE FROM {{0}}.done d WHERE d.token IN (
      SELECT o.token FROM {{0}}.done o WHERE o.at < now() - interval '1 hour' LIMIT 100 FOR UPDATE SKIP LOCKED
    );
    INSERT INTO {{0}}.done VALUES (token, now());
  END IF;
  IF cardinality(gone) > 0 THEN
    DELETE FROM {{0}}.pairs WHERE key = ANY(gone);
  END IF;
  INSERT INTO {{0}}.pairs (key, value, txid)
    SELECT b.key, b.value, CASE WHEN get_byte(b.key, 0) = {_FED} THEN pg_current_xact_id() END
    FROM unnest(keys, vals) AS b(key, value)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, txid = excluded.txid;
  RETURN NULL;
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
    """The statements on one log. Each answers with a row that has its first argument in front.

    Where there may be none, that is one more, of NULLs.

    Args:
        schema: the log's, whose name needs no escape within quotes.
    """

    def __init__(self, schema: str) -> None:
        pairs = f'"{schema}".pairs'
        echo = "SELECT %s::bigint, NULL::bytea, NULL::bytea UNION ALL "
        page = (
            f"{echo}(SELECT r.n, p.key, p.value FROM unnest(%s, %s) WITH ORDINALITY AS r(low, high, n) "
            f"CROSS JOIN LATERAL (SELECT key, value FROM {pairs} WHERE key >= r.low AND key < r.high "
            "ORDER BY key{0} LIMIT %s) p ORDER BY r.n, p.key{0} LIMIT %s)"
        )
        self.get = f"{echo}SELECT 0, key, value FROM {pairs} WHERE key = ANY(%s)"
        self.forward = page.format("")
        self.backward = page.format(" DESC")
        self.feed = (
            f"SELECT %s::bigint, {_OF_FEED.format(pairs)}, NULL::bytea UNION ALL "
            f"(SELECT 0, p.txid::text, p.key FROM {pairs} p WHERE p.txid IS NOT NULL "
            "AND (p.txid, p.key) > (%s::xid8, %s) AND p.txid < pg_snapshot_xmin(pg_current_snapshot()) "
            "ORDER BY p.txid, p.key LIMIT %s)"
        )
        self.commit = f'SELECT %s::bigint, "{schema}".commit(%s::bigint[], %s, %s, %s, %s, %s, %s::bytea, %s, %s::int)'
        self.flush = f'SELECT %s::bigint, "{schema}".flush()'
        self.is_flushed = "SELECT %s::bigint, pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn()"
        self.size = f"SELECT %s::bigint, pg_total_relation_size('{pairs}')"


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
