"""Where a log in an object store is, and what the store's failures are called here.

Owns URLs and the translation of errors. It must never show what a URL or a message may hold of a password.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from slatedb import uniffi as slate

from eventlog.errors import CorruptionError, EventLogError, InvalidInputError, StorageError, TakenOverError

_FOLDER: Final = "file:///"
_URL: Final = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]*)/(.+)")
_BAD: Final = re.compile(r"[^ -~]|[\\{}^%`\]\[\"<>~#|*?]|//")
"""What stores or their libraries write in another way than it stands, so that two names could be one place."""
_MESSAGE_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log is.

    Attributes:
        root: the URL of the store.
        path: of the log in it.
        folder: the folder that it is, empty where it is in a bucket.
        shown: the URL as messages may show it.
    """

    root: str
    path: str
    folder: str
    shown: str


def place_of(url: str) -> Place:
    """The place that a URL names.

    Raises:
        InvalidInputError: it names none, or one whose name could be read in two ways.
    """
    if url.startswith(_FOLDER):
        return _folder(url.removeprefix("file://"))
    found = _URL.fullmatch(url)
    if not found:
        raise InvalidInputError(
            "a log in an object store is s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH "
            "without options; credentials and the endpoint come from the environment (AWS_…, GOOGLE_…, AZURE_…)"
        )
    scheme, bucket, rest = found.groups()
    prefix = rest.strip("/")
    _check(prefix)
    return Place(f"{scheme}://{bucket}", prefix, "", f"{scheme}://{bucket}/{prefix}")


def _folder(path: str) -> Place:
    folder = os.path.realpath(path)
    _check(folder.lstrip("/"))
    return Place(_FOLDER, folder.lstrip("/"), folder, f"file://{folder}")


def _check(prefix: str) -> None:
    if not prefix or _BAD.search(prefix) or {".", ".."} & set(prefix.split("/")):
        shown = re.sub(r"\?.*", "?…", prefix)  # a signature may follow
        raise InvalidInputError(
            f"{shown!r} cannot be the prefix of a log: name one in plain letters, digits and any of - _ . / = + , : @"
        )


def taken_over(place: Place) -> TakenOverError:
    """What a writer is told after another one opened the log."""
    return TakenOverError(
        f"{place.shown}: another process opened this log for writing and took it over; what was acknowledged here is "
        "safe, this call was not and may be there or not; open the log again to take it back, or with readonly=True to "
        "read beside the other"
    )


def translated(error: slate.Error | slate.InternalError, place: Place, doing: str) -> EventLogError:
    """What a failure of the store is called here; `doing` says what for, and what that means for what was written."""
    text = _readable(error)
    if isinstance(error, slate.Error.Closed):
        if error.reason == slate.CloseReason.FENCED:
            return taken_over(place)
        return StorageError(f"{place.shown}: the log had to be closed ({text}) while {doing}; open it again")
    if isinstance(error, slate.Error.Data):
        return CorruptionError(place.shown, text)
    advice = "see that the bucket is there, the credentials in the environment are right, and the network is up"
    return StorageError(f"{place.shown}: the store failed while {doing}: {text}; {advice}, and call again")


def is_nothing(error: slate.Error) -> bool:
    """Whether an error of opening says that no log is there."""
    return isinstance(error, slate.Error.Data) and "failed to find latest" in error.message


def _readable(error: slate.Error | slate.InternalError) -> str:
    """A message without what may hold a signature or a password, and not page by page."""
    text = " ".join(str(error if isinstance(error, slate.InternalError) else error.message).split())
    return re.sub(r"://[^/\s]*@", "://…@", re.sub(r"\?\S+", "?…", text))[:_MESSAGE_CHARS]
