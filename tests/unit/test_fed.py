"""The feed of engines that keep it in files: how it is packed, through folds, in other processes, of older formats."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import EventLog
from eventlog.errors import FormatError, InvalidInputError
from eventlog.storage import local, open_storage
from eventlog.storage.base import FED
from eventlog.storage.fed import behind, packed, spread, stretches, unpacked

FORMAT_1 = Path(__file__).parents[1] / "data" / "format-1"
ROOT = Path(__file__).parents[2]


def numbered(run, n):
    return FED + run.to_bytes(8, "big") + bytes(4) + n.to_bytes(8, "big")


def put(storage, *keys):
    storage.commit([(key, b"value" * 20) for key in keys])


def fed(storage, after=b""):
    return [key for _, key in storage.feed(after)]


keys = st.builds(lambda run, n: FED + bytes([run]) + n.to_bytes(8, "big"), st.integers(0, 2), st.integers(0, 4))


class TestPacked:
    @given(st.lists(keys | st.binary(min_size=1, max_size=12)))
    def test_any_keys_come_back(self, keys):
        assert list(unpacked(packed(keys))) == keys
        assert [key for stretch in stretches(keys) for key in spread(*stretch)] == keys

    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 5, (1 << 64) - 40]), st.integers(1, 90))))
    def test_long_stretches_are_found_and_each_key_comes_back(self, given):
        keys = [numbered(run, (first + n) % (1 << 64)) for run, first, count in given for n in range(count)]
        found = [*stretches(keys)]
        assert [key for stretch in found for key in spread(*stretch)] == keys
        assert all(behind(*one) != other[0] for one, other in pairwise(found)), "two that are one"
        assert [*unpacked(packed(keys))] == keys

    def test_a_stretch_longer_than_what_is_looked_at_at_once_is_one(self):
        assert [*stretches(numbered(1, n) for n in range(9000))] == [(numbered(1, 0), 9000)]

    def test_the_last_number_is_followed_by_nothing(self):
        last = FED + b"run" + b"\xff" * 8
        assert list(unpacked(packed([last, FED + b"ruo" + bytes(8)]))) == [last, FED + b"ruo" + bytes(8)]

    def test_a_loop_takes_a_few_bytes_and_runs_that_take_turns_a_few_per_key(self):
        assert len(packed(numbered(1, n) for n in range(10_000))) < 40
        assert len(packed(numbered(n % 100, n // 100) for n in range(10_000))) < 100 * 30 + 10_000 * 2
        assert len(packed(numbered(n % 1000, n // 1000) for n in range(10_000))) < 1000 * 30 + 10_000 * 4


class TestFolded:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(local, "FILE_BYTES", 1000)

    def test_the_order_and_the_positions_stay(self, tmp_path):
        with EventLog.open(tmp_path / "log") as log:
            storage = log._storage
            expected, positions = [], {}
            for n in range(200):
                put(storage, numbered(n % 3, n))
                expected.append(numbered(n % 3, n))
                if n % 17 == 0:
                    positions[n] = list(storage.feed())[-1][0]
        assert not [path for path in (tmp_path / "log" / "journal").glob("0*") if path.stat().st_size]
        storage = open_storage(tmp_path / "log")
        put(storage, numbered(9, 0))
        assert fed(storage) == [*expected, numbered(9, 0)]
        for n, position in positions.items():
            assert fed(storage, position) == [*expected[n + 1 :], numbered(9, 0)]
        storage.close()

    @pytest.mark.parametrize("handles", [1, 2])
    def test_what_one_commit_puts_stays_in_key_order(self, tmp_path, handles):
        storages = [open_storage(tmp_path / "log") for _ in range(handles)]
        expected, positions = [], []
        for n in range(60):
            some = [numbered(3 - n % 3, n), b"H%d" % n, numbered(1, n + 100), numbered(1, n + 100), numbered(0, n)]
            put(storages[n % handles], *some)
            expected += sorted({key for key in some if key[:1] == FED})
            positions += [position for position, _ in storages[0].feed(positions[-1] if positions else b"")]
        for storage in storages:
            storage.close()
        storage = open_storage(tmp_path / "log", readonly=True)
        assert list(storage.feed()) == list(zip(positions, expected, strict=True))
        storage.close()

    def test_a_position_behind_all_of_a_folded_file_is_refused(self, tmp_path):
        storage = open_storage(tmp_path / "log")
        put(storage, numbered(1, 0))
        position = list(storage.feed())[-1][0]
        storage.close()
        storage = open_storage(tmp_path / "log")
        with pytest.raises(InvalidInputError):
            list(storage.feed(position[:-1] + b"\x07"))
        storage.close()

    @pytest.mark.parametrize("synchronous", ["full", "off"])
    def test_whatever_is_committed_how(self, tmp_path, synchronous):
        storage = open_storage(tmp_path / "log", synchronous=synchronous)
        expected = [numbered(1, n) for n in range(50)]
        for key in expected[:25]:
            put(storage, key)
        found = list(storage.feed())
        for key in expected[25:]:
            put(storage, key)
        assert [key for _, key in found] + fed(storage, found[-1][0]) == expected
        storage.close()
        storage = open_storage(tmp_path / "log", readonly=True)
        assert fed(storage) == expected
        storage.close()


CHILD = """
import sys
from eventlog.storage import open_storage
storage = open_storage(sys.argv[1])
run = int(sys.argv[2])
for n in range(300):
    key = b"E" + run.to_bytes(8, "big") + bytes(4) + n.to_bytes(8, "big")
    storage.commit([(key, b"v" * 50), (b"H%d" % run, b"%d" % n)])
storage.close()
"""


@pytest.mark.parametrize("location", ["{}/log", "sqlite:///{}/log.db"], ids=["lmdb", "sqlite"])
def test_processes_write_and_one_follows(tmp_path, location, monkeypatch):
    monkeypatch.setattr(local, "FILE_BYTES", 5000)
    where = location.format(tmp_path)
    storage = open_storage(where)
    writers = [subprocess.Popen([sys.executable, "-c", CHILD, where, str(run)], cwd=ROOT) for run in range(3)]
    position, seen = b"", []
    while True:
        are_done = all(writer.poll() is not None for writer in writers)
        found = list(storage.feed(position, limit=97))
        seen += [key for _, key in found]
        position = found[-1][0] if found else position
        put(storage, b"A")  # takes part in writing, and folds
        if are_done and not found:
            break
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(seen) == 900
    for run in range(3):
        assert [key for key in seen if key[1:9] == run.to_bytes(8, "big")] == [numbered(run, n) for n in range(300)]
    program = "import sys; from eventlog.storage import open_storage as o; s = o(sys.argv[1]); import json;"
    program += "print(json.dumps([k.hex() for _, k in s.feed(bytes.fromhex(sys.argv[2]))]))"
    middle = list(storage.feed())[449][0].hex()
    done = subprocess.run([sys.executable, "-c", program, where, middle], cwd=ROOT, capture_output=True, check=True)
    assert [bytes.fromhex(key) for key in json.loads(done.stdout)] == seen[450:]
    storage.close()


class TestOlderFormats:
    def test_what_was_there_comes_first_and_then_the_order_of_commits(self, tmp_path):
        shutil.copytree(FORMAT_1, tmp_path / "log")
        with EventLog.open(tmp_path / "log", readonly=True) as log:
            assert log.runs()
            with pytest.raises(FormatError, match="open it once for writing"):
                list(log.feed())
        with EventLog.open(tmp_path / "log") as log:
            before = list(log.feed())
            log.run("new").append({"x": 1})
            log.run("long").append({"n": 200})
            log.run("new").append({"x": 2})
            assert [(fed.run, fed.event.step) for fed in log.feed(before[-1].position)] == [
                ("new", 0),
                ("long", 200),
                ("new", 1),
            ]
        with EventLog.open(tmp_path / "log", readonly=True) as log:
            after = list(log.feed())
        assert after[: len(before)] == before
        assert len(before) == 206
        assert len({fed.event.digest for fed in after}) == len(after) == 209

    def test_a_file_of_sqlite(self, tmp_path):
        where = f"sqlite:///{tmp_path}/log.db"
        storage = open_storage(where)
        put(storage, numbered(2, 0))
        put(storage, numbered(1, 0))
        storage.close()
        with sqlite3.connect(tmp_path / "log.db") as connection:
            connection.execute("DROP TABLE fed")
            connection.execute("PRAGMA user_version = 1")
        connection.close()
        storage = open_storage(where, readonly=True)
        assert storage.get([numbered(2, 0)]) == [b"value" * 20]
        with pytest.raises(FormatError, match="open it once for writing"):
            list(storage.feed())
        storage.close()
        storage = open_storage(where)
        put(storage, numbered(0, 0))
        assert fed(storage) == [numbered(1, 0), numbered(2, 0), numbered(0, 0)]
        storage.close()
