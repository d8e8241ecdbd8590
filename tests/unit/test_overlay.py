"""The layers over LMDB: what is interrupted there loses nothing."""

from __future__ import annotations

from itertools import count

from eventlog.storage.overlay import Layer
from tests.counting import interrupted_at


def test_keys_that_were_being_sorted_when_it_was_interrupted_are_listed_all_the_same():
    for line in count(1):
        layer = Layer(1)
        layer.values.update(dict.fromkeys([b"E1", b"E9", b"E5"], b""))
        assert layer.keys_between(b"E", b"F", 9, reverse=False) == [b"E1", b"E5", b"E9"]
        layer.values.update(dict.fromkeys([b"E7", b"E3", b"Z", b"E10"], b""))
        if not interrupted_at(line, {"_sort"}, lambda: layer.keys_between(b"E", b"F", 9, reverse=False)):  # noqa: B023 (at once)
            break
        assert layer.keys_between(b"E", b"F", 9, reverse=False) == [b"E1", b"E10", b"E3", b"E5", b"E7", b"E9"], line
    assert line > 4
