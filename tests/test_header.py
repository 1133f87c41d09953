"""The safetensors header reader against real files and against files that lie."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moshi_mlx.checkpoints.header import read_header
from moshi_mlx.frame import MoshiError


def file_of(path: Path, entries: object, data: bytes = b"", length: int | None = None) -> Path:
    """Writes a safetensors file by hand, truthful or not."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), span: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def test_agrees_with_mlx(tmp_path: Path) -> None:
    """Wrong offsets would make the streaming quantizer and `models verify` read another tensor's bytes."""
    arrays = {
        "a": mx.arange(6, dtype=mx.float32).reshape(2, 3),
        "b.weight": mx.array([1, 2, 3], dtype=mx.uint32),
        "c": mx.zeros((3, 0, 2), dtype=mx.bfloat16),
        "scalar": mx.array(7, dtype=mx.int8),
    }
    mx.save_safetensors(str(tmp_path / "x.safetensors"), arrays, {"format": "mlx"})
    header = read_header(tmp_path / "x.safetensors")
    assert {name: info.shape for name, info in header.tensors.items()} == {n: a.shape for n, a in arrays.items()}
    assert header.metadata["format"] == "mlx"
    assert [header.tensors[n].dtype for n in ("a", "b.weight", "c", "scalar")] == ["F32", "U32", "BF16", "I8"]
    raw = (tmp_path / "x.safetensors").read_bytes()
    for name in ("a", "b.weight", "scalar"):
        info = header.tensors[name]
        assert raw[info.start : info.end] == bytes(memoryview(arrays[name]))
    assert header.nbytes == len(raw) - header.data_start == 24 + 12 + 1


@pytest.mark.parametrize(
    ("entries", "data", "says"),
    [
        ({"x": entry()}, b"1234567", "cut short"),
        ({"x": entry()}, b"12345678tail", "after its last tensor"),
        ({"x": entry(span=(0, 4))}, b"12345678", "does not fill"),
        ({"x": entry(span=(8, 0))}, b"12345678", "offsets"),
        ({"x": entry(span=(-8, 0))}, b"12345678", "offsets"),
        ({"x": entry(span=(0, 8, 9))}, b"12345678", "offsets"),
        ({"x": entry(shape=(2.0,))}, b"12345678", "shape"),
        ({"x": entry(shape=(True, 2))}, b"12345678", "shape"),
        ({"x": entry(shape=(-2, -1))}, b"12345678", "shape"),
        ({"x": entry(shape=[1] * 9, span=(0, 4))}, b"1234", "shape"),
        ({"x": entry(shape=(2**62, 2**62, 0), span=(0, 8))}, b"12345678", "does not fill"),
        ({"x": entry(shape=(2**70,), span=(0, 2**72))}, b"12345678", "cut short"),
        ({"x": entry(dtype="F4")}, b"12345678", "unknown dtype"),
        ({"x": entry(dtype=["F32"])}, b"12345678", "unknown dtype"),  # type: ignore[arg-type]
        ({"x": entry(), "y": entry(span=(4, 12))}, b"123456789012", "overlaps"),
        ({"x": entry(), "y": entry(span=(12, 20))}, b"1" * 20, "gap"),
        ({"x": [1, 2]}, b"", "not described"),
        ({"__metadata__": {"a": 1}}, b"", "metadata"),
        (b'{"x":1,"x":2}', b"", "twice"),
        (b'{"x":' + b"[" * 200_000, b"", "damaged header"),
        (b"{" + b" " * 100, b"", "damaged header"),
        (b'{"x":' + b"9" * 5000 + b"}", b"", "damaged header"),
        (b'{"\xff": 1}', b"", "damaged header"),
    ],
)
def test_lies_are_refused(tmp_path: Path, entries: object, data: bytes, says: str) -> None:
    """Each of these once made some reader read past the file, allocate without bound or show a traceback."""
    path = file_of(tmp_path / "x.safetensors", entries, data)
    with pytest.raises(MoshiError, match=says) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"abc", "not a safetensors"),
        (pickle.dumps({"a": list(range(100))}), "pickle"),
        (b"PK\x03\x04" + b"\0" * 60, "zip"),
        (b"GGUF\x03\0\0\0" + b"\0" * 60, "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        ((10**6).to_bytes(8, "little") + b'{"a":', "cut short"),
        ((2**62).to_bytes(8, "little") + b'{"a":', "more than any model"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    """A renamed pickle or an LFS pointer must be called what it is, not 'invalid header'."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(MoshiError, match=says):
        read_header(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    """A FIFO or a folder must not hang or show an errno."""
    with pytest.raises(MoshiError, match="does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(MoshiError, match="not a file"):
        read_header(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """Any flipped byte or cut either leaves a consistent header or gives one MoshiError, never another exception."""
    path = tmp_path / "x.safetensors"
    file_of(path, {"a": entry(), "b": entry("BF16", (1, 3), (8, 14))}, b"12345678123456")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        header = read_header(path)
    except MoshiError as error:
        message = str(error)
    else:
        message = ""
        assert all(header.data_start <= info.start <= info.end <= len(raw) for info in header.tensors.values())
    assert "\n" not in message
