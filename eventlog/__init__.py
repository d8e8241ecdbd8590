"""An event-sourced, append-only log for programs that run in steps.

Each superstep's writes are appended as one immutable event; any past state is materialised on demand; a fork is a
pointer. What is public is listed here; everything else may change.
"""

from eventlog.codec import MSGPACK, Codec, known_codec, register, register_codec, unregister
from eventlog.diff import Change, Diff
from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    ConflictError,
    CorruptionError,
    EventLogError,
    FormatError,
    IdConflictError,
    InvalidIdError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    StorageError,
    TakenOverError,
    TooDeepError,
    TooLargeError,
    UnknownTypeError,
    UnserializableError,
)
from eventlog.events import (
    AppendText,
    Branch,
    Delete,
    Event,
    Extend,
    Fed,
    Limits,
    Merge,
    Problem,
    Pruned,
    Splice,
    Stats,
    TaskWrite,
    Update,
)
from eventlog.identity import KnownObjects
from eventlog.ids import check_id, packed_id, unpacked_id
from eventlog.log import EventLog
from eventlog.query import blame, history
from eventlog.run import Prepared, Run
from eventlog.state import State

__version__ = "0.1.0"

__all__ = [
    "MSGPACK",
    "AppendText",
    "Branch",
    "BusyError",
    "CapacityError",
    "Change",
    "ClosedError",
    "Codec",
    "ConflictError",
    "CorruptionError",
    "Delete",
    "Diff",
    "Event",
    "EventLog",
    "EventLogError",
    "Extend",
    "Fed",
    "FormatError",
    "IdConflictError",
    "InvalidIdError",
    "InvalidInputError",
    "KnownObjects",
    "Limits",
    "Merge",
    "MissingExtraError",
    "NotFoundError",
    "Prepared",
    "Problem",
    "Pruned",
    "Run",
    "Splice",
    "State",
    "Stats",
    "StorageError",
    "TakenOverError",
    "TaskWrite",
    "TooDeepError",
    "TooLargeError",
    "UnknownTypeError",
    "UnserializableError",
    "Update",
    "__version__",
    "blame",
    "check_id",
    "history",
    "known_codec",
    "packed_id",
    "register",
    "register_codec",
    "unpacked_id",
    "unregister",
]
