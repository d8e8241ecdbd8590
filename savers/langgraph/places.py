"""Where LangGraph's savers keep their threads, and how each is opened to copy from it or to it.

Owns the kinds of places. What is copied from is opened so that nothing can be written there: no table is made, no
schema is brought up to date. The packages of upstream's savers are imported where they are used.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
from collections import Counter
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventlog import EventLogError, FormatError, InvalidInputError, StorageError, UnknownTypeError
from savers.langgraph.serde import SerdeCodec, strict_serializer
from savers.tagged import OWN, tagged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langgraph.checkpoint.serde.base import SerializerProtocol

    Saver = BaseCheckpointSaver[Any]
    Opener = Callable[[str, SerializerProtocol], AbstractContextManager[Saver]]

_COLUMNS: Final = {
    "checkpoints": {"thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata"},
    "writes": {"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "value"},
}
_CONNECT_TIMEOUT_S: Final = 10
_MSGPACK: Final = "msgpack"


class Strict:
    """A serializer that refuses what the one it stands on would only log and hand back in pieces."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._codec = SerdeCodec(serde)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """As the serializer it stands on."""
        return self._codec.serde.dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """As the serializer it stands on.

        Raises:
            UnknownTypeError: it may not build that type, or cannot.
            CorruptionError: it cannot read it.
        """
        tag, payload = data
        if tag == OWN:
            raise UnknownTypeError(tag, "no serializer of LangGraph writes that")
        value = self._codec.decode(tagged(tag, payload))
        named = _types(payload) if tag == _MSGPACK else []
        built = _types(self.dumps_typed(value)[1]) if named else []
        if len(built) < len(named):
            raise UnknownTypeError(
                next(iter(Counter(named) - Counter(built))),
                "an object of it cannot be made from what is stored; mend its class, or make it importable from here",
            )
        return value


def _types(payload: bytes) -> list[str]:
    """The types that LangGraph's MessagePack names, object by object, however deep."""
    found: list[str] = []

    def note(code: int, inner: bytes) -> None:
        held = msgpack.unpackb(inner, strict_map_key=False, ext_hook=note)
        is_object = isinstance(held, list) and len(held) > 1
        found.append(".".join(map(str, held[:2])) if is_object else f"extension {code}")

    msgpack.unpackb(payload, strict_map_key=False, ext_hook=note)
    return found


def serializer(allowed: Sequence[str] = ()) -> JsonPlusSerializer:
    """LangGraph's serializer, limited to the types it knows to be safe and those that are `allowed`.

    Args:
        allowed: names of types, as ``package.module.Name``.

    Raises:
        InvalidInputError: a name without a module.
    """
    if not allowed:
        return strict_serializer()
    names = [tuple(name.rsplit(".", 1)) for name in allowed]
    for name in names:
        if len(name) != 2 or not all(name):  # noqa: PLR2004 (module and name)
            raise InvalidInputError(f"a type is named as package.module.Name, not {'.'.join(name)!r}")
    return JsonPlusSerializer(allowed_msgpack_modules=names)


@contextmanager
def opened(kind: str, where: str, serde: SerializerProtocol, *, to_read: bool) -> Iterator[Saver]:
    """A saver on a place of somebody else's, open within ``with``.

    Args:
        kind: ``"langgraph-sqlite"``, ``"langgraph-postgres"`` or ``"saver"``.
        where: a file; a DSN or URI; ``module:factory``, where the factory is a function without arguments that returns
            a saver or a context manager of one, or a saver itself.
        serde: reads and writes the values; a factory's saver has its own.
        to_read: nothing is to be written there.

    Raises:
        ImportError: the package that the kind needs is not installed.
        FormatError: nothing is there, or not what LangGraph writes.
        StorageError: the place cannot be reached.
        InvalidInputError: there is no such kind, or the factory makes no saver.
    """
    opener = (_READ if to_read else _WRITE).get(kind)
    if opener is None:
        raise InvalidInputError(f"there is no kind {kind!r}; it is one of {', '.join(_READ)}")
    with opener(where, Strict(serde)) as saver:
        yield saver


# --- SQLite ---------------------------------------------------------------------------------------------------------


@contextmanager
def _sqlite_to_read(where: str, serde: SerializerProtocol) -> Iterator[Saver]:
    from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 (an extra)

    path = Path(where)
    if not path.is_file():
        raise FormatError(f"there is no SQLite file at {where}")
    try:
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"{where} cannot be opened to read ({error})") from error
    with closing(base):
        columns = _sqlite_columns(base, where)
        saver = SqliteSaver(base, serde=serde)
        saver.is_setup = True  # its setup() makes tables and changes the journal
        saver._has_task_path = "task_path" in columns  # noqa: SLF001 (which its setup() would find out)
        yield saver


def _sqlite_columns(base: sqlite3.Connection, where: str) -> set[str]:
    """The columns of the table of writes."""
    found: set[str] = set()
    try:
        for table, needed in _COLUMNS.items():
            found = {row[1] for row in base.execute(f"PRAGMA table_info({table})")}
            if not needed <= found:
                raise FormatError(f"{where} is a SQLite file, but not one that LangGraph's SqliteSaver wrote")
    except sqlite3.OperationalError as error:
        raise StorageError(f"{where} cannot be read ({error})") from error
    except sqlite3.DatabaseError as error:
        raise FormatError(f"{where} is not a SQLite file ({error})") from error
    return found


@contextmanager
def _sqlite_to_write(where: str, serde: SerializerProtocol) -> Iterator[Saver]:
    from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 (an extra)

    try:
        base = sqlite3.connect(where, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"{where} cannot be opened to write ({error})") from error
    with closing(base):
        saver = SqliteSaver(base, serde=serde)
        try:
            saver.setup()
        except sqlite3.Error as error:
            raise FormatError(f"{where} is not a SQLite file that can be written ({error})") from error
        yield saver


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@contextmanager
def _postgres_to_read(where: str, serde: SerializerProtocol) -> Iterator[Saver]:
    from savers.langgraph.paged import PagedPostgresSaver  # noqa: PLC0415 (an extra)

    with _postgres(where) as connection:
        connection.execute("SET default_transaction_read_only = on")
        there = connection.execute("SELECT to_regclass('checkpoints') AS a, to_regclass('checkpoint_writes') AS b")
        if None in there.fetchone().values():
            raise FormatError("that PostgreSQL database has no tables of LangGraph's PostgresSaver")
        yield PagedPostgresSaver(connection, serde=serde)


@contextmanager
def _postgres_to_write(where: str, serde: SerializerProtocol) -> Iterator[Saver]:
    import psycopg  # noqa: PLC0415 (an extra)
    from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415 (an extra)

    with _postgres(where) as connection:
        saver = PostgresSaver(connection, serde=serde)
        try:
            saver.setup()
        except psycopg.Error as error:
            raise StorageError(f"LangGraph's tables cannot be made in that PostgreSQL database ({error})") from error
        yield saver


@contextmanager
def _postgres(where: str) -> Iterator[Any]:
    import psycopg  # noqa: PLC0415 (an extra)
    from psycopg.rows import dict_row  # noqa: PLC0415 (an extra)

    try:
        connection: Any = psycopg.connect(
            where, autocommit=True, prepare_threshold=0, row_factory=dict_row, connect_timeout=_CONNECT_TIMEOUT_S
        )
    except psycopg.Error as error:
        raise StorageError(f"PostgreSQL cannot be reached ({str(error).strip()}); is the DSN right?") from error
    with connection:
        yield connection


# --- anything else --------------------------------------------------------------------------------------------------


@contextmanager
def _made(where: str, _serde: SerializerProtocol) -> Iterator[Saver]:
    with ExitStack() as stack:
        try:
            found = _named(where)
            if callable(found) and not isinstance(found, BaseCheckpointSaver):
                found = found()
            if isinstance(found, AbstractContextManager) and not isinstance(found, BaseCheckpointSaver):
                found = stack.enter_context(found)
        except EventLogError:
            raise
        except Exception as error:  # whatever the user's module, function or context manager raises
            raise InvalidInputError(f"{where} raised {type(error).__name__}: {error}") from error
        yield _checked(where, found)


def _named(where: str) -> Any:
    module, _, name = where.partition(":")
    if not module or not name or module.startswith("."):
        raise InvalidInputError(f"a saver is named as module:factory, not {where!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look where it is started, as python -m does
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"there is no {where}: {error}") from error


def _checked(where: str, saver: object) -> Saver:
    if not isinstance(saver, BaseCheckpointSaver):
        raise InvalidInputError(f"{where} makes {type(saver).__name__}, not a saver of LangGraph (BaseCheckpointSaver)")
    return saver


_READ: Final[dict[str, Opener]] = {
    "langgraph-sqlite": _sqlite_to_read,
    "langgraph-postgres": _postgres_to_read,
    "saver": _made,
}
_WRITE: Final[dict[str, Opener]] = {
    "langgraph-sqlite": _sqlite_to_write,
    "langgraph-postgres": _postgres_to_write,
    "saver": _made,
}
