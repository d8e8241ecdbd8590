"""Arrays and scalars of numpy come back as they were, or are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eventlog import CorruptionError, EventLog, Splice, UnserializableError
from eventlog.codec import MSGPACK, MsgpackCodec
from savers.serde import JsonPlusSerde

ROOT = Path(__file__).parents[2]
CODECS = [MSGPACK, JsonPlusSerde()]


def check(value: Any) -> None:
    """Type, dtype with byte order, shape, order of memory and every bit come back, in memory of its own."""
    for codec in CODECS:
        back = codec.decode(codec.encode(value))
        assert type(back) is type(value)
        assert back.dtype == value.dtype
        assert back.dtype.str == value.dtype.str
        assert back.shape == value.shape
        assert back.tobytes() == value.tobytes()
        if isinstance(value, np.ndarray):
            assert back.flags.writeable
            assert back.flags.owndata
            for order in ("f_contiguous", "c_contiguous"):
                assert not getattr(value.flags, order) or getattr(back.flags, order)


dtypes = st.one_of(
    arrays.scalar_dtypes(), arrays.unicode_string_dtypes(max_len=4), arrays.byte_string_dtypes(max_len=4)
)


@given(arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), st.booleans())
def test_any_array(value: Any, by_columns: bool) -> None:
    check(np.asfortranarray(value) if by_columns and value.ndim else value)


@given(arrays.arrays(dtypes, ()))
def test_any_scalar(value: Any) -> None:
    check(value[()])


@pytest.mark.parametrize(
    "value",
    [
        np.arange(24).reshape(2, 3, 4)[::-1, ::2, 1],
        np.arange(6).reshape(2, 3).T,
        np.broadcast_to(np.float32(1), (3, 2)),
        np.array([np.nan, -0.0, np.inf], ">f8"),
        np.array(["a", "bcd"]),
        np.array([b"a\0"]),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.array([1, 2], "m8[25us]"),
        np.zeros((0, 3), "F"),
        np.array(5),
        np.zeros(3, "V5"),
        np.str_(""),
        np.str_("a\0\ud800"),
        np.bytes_(b"a\0"),
        np.float64(1.5),
        np.bool_(True),
        np.datetime64("NaT"),
    ],
    ids=repr,
)
def test_each_kind(value: Any) -> None:
    check(value)
    for codec in CODECS:
        back = codec.decode(codec.encode({"k": [value, (value,)], "buffer": bytearray(b"b")}))
        assert back["k"][1][0].tobytes() == back["k"][0].tobytes() == value.tobytes()


def test_a_scalar_may_be_a_key() -> None:
    for codec in CODECS:
        (key,) = codec.decode(codec.encode({np.int8(3): 1}))
        assert type(key) is np.int8


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array([[1], [1, 2]], object),
        np.zeros(2, [("a", "i4"), ("b", "f8")]),
        np.zeros(2, [("a", "i4")])[0],
        np.zeros(2, np.dtype("f8", metadata={"unit": "m"})),
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros(2, "V5")[0],
        np.array(["a"], np.dtypes.StringDType()),
    ],
    ids=lambda value: f"{type(value).__name__} {value.dtype}",
)
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    for codec in CODECS:
        with pytest.raises(UnserializableError, match=r"^c\.k: .*(support)") as caught:
            codec.encode({"k": value}, "c")
        assert caught.value.path == "c.k"


@pytest.mark.parametrize("parts", [["|O", [1], False, ""], ["<f8", [2], False, ""], ["i4,f8", [0], False, ""], [1]])
def test_damaged_arrays_are_corruption(parts: Any) -> None:
    serde = JsonPlusSerde()
    with pytest.raises(CorruptionError):
        serde.decode(f'{{"$type":"numpy:ndarray","value":{parts}}}'.replace("'", '"').replace("F", "f").encode())


def test_a_change_in_place_is_found() -> None:
    with EventLog.open("memory:") as log:
        run = log.run("r")
        state: dict[str, Any] = {"w": np.zeros((2, 3)), "l": [np.arange(3), "x" * 50], "d": {"a": np.float32(1)}}
        run.commit(state)
        assert run.commit(state).writes == {}
        assert run.commit({**state, "w": state["w"].copy()}).writes == {}
        state["w"][1, 2] = -0.0
        assert [*run.commit(state).writes] == ["w"]
        state["l"][0] += 1
        assert type(run.commit(state).writes["l"]) is Splice
        state["w"] = np.asfortranarray(state["w"])
        assert [*run.commit(state).writes] == ["w"]
        state["w"] = state["w"].astype(">f8")
        assert [*run.commit(state).writes] == ["w"]
        state["w"] = state["w"].reshape(6)
        assert [*run.commit(state).writes] == ["w"]
        state["d"]["a"] = np.float64(1)
        assert [*run.commit(state).writes] == ["d"]
        assert run.diff(0, run.step).paths
        assert run.state["w"].dtype == state["w"].dtype
        assert list(log.verify()) == []


def test_scalars_are_leaves_and_cost_nothing_to_look_at() -> None:
    from tests.unit.test_shadow import Asked, delta, shadow_of

    codec, value = Asked(), [np.float64(n) for n in range(500)]
    shadow = shadow_of(value, codec)
    codec.calls = 0
    assert delta.difference(shadow, value, codec, "c") is None
    assert codec.calls == 0


def test_a_process_without_numpy_says_what_to_import() -> None:
    data = MSGPACK.encode([np.arange(2)])
    program = f"""
import sys
from eventlog import UnknownTypeError
from eventlog.codec import MSGPACK, MsgpackCodec
try:
    MSGPACK.decode({data!r})
except UnknownTypeError as error:
    print(error)
print(MsgpackCodec(inert=True).decode({data!r})[0]["shape"], "numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "import numpy before reading" in done.stdout
    assert done.stdout.endswith("[2] False\n")


def test_inert_reading_shows_what_it_is() -> None:
    (shown,) = MsgpackCodec(inert=True).decode(MSGPACK.encode([np.arange(2, dtype="<i2")]))
    assert shown == {
        "$type": "numpy:ndarray", "value": b"\0\0\1\0", "dtype": "<i2", "shape": [2], "by_columns": False,
    }  # fmt: skip
    assert (
        JsonPlusSerde(inert=True).decode(JsonPlusSerde().encode(np.arange(2, dtype="<i2")))["$type"] == "numpy:ndarray"
    )
