"""Headers of safetensors files, refused where the library itself refuses them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.stored import tensor_files
from planner.stored.tensor_files import BrokenFileError, Tensor, read_header

from .test_checkpoint import header


@st.composite
def changed_file(draw: st.DrawFn) -> bytes:
    """A safetensors file of up to four tensors, which something may be wrong with."""
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for number in range(draw(st.integers(0, 4))):
        dtype = draw(st.sampled_from(sorted(tensor_files.DTYPE_BITS)))
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=3))
        begin, end = end, end + Tensor("", dtype, tuple(shape)).bytes
        entries[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    if draw(st.booleans()) and entries:
        one = entries[draw(st.sampled_from(sorted(entries)))]
        key = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
        places = [
            [0, 4],
            [end, end + 4],
            [one["data_offsets"][0] + 1, one["data_offsets"][1] + 1],
            [4, 0],
            [1],
        ]
        one[key] = draw(st.sampled_from(["F16", "f32", None, [-1], [2**63], [1.0], [True], [[1]], *places]))
    kinds: list[dict[str, Any]] = [{}, {}, {"__metadata__": {"a": "b"}}, {"__metadata__": {"a": 1}}]
    metadata = draw(st.sampled_from(kinds))
    room = max(0, end + draw(st.sampled_from([0, 0, 0, -1, 8])))
    return header(json.dumps(metadata | entries).encode() + b" " * draw(st.integers(0, 3))) + bytes(room)


@given(changed_file())
@settings(max_examples=300)
def test_a_file_is_refused_where_the_library_refuses_it(data: bytes) -> None:
    safetensors = pytest.importorskip("safetensors")
    try:
        safetensors.deserialize(data)
        theirs = True
    except safetensors.SafetensorError:
        theirs = False
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        try:
            read_header(file.name)
            ours = True
        except BrokenFileError:
            ours = False
    assert ours is theirs


def test_tensors_that_overlap_hold_fewer_weights_than_they_say(tmp_path: Path) -> None:
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    (tmp_path / "x.safetensors").write_bytes(header(json.dumps({"a": one, "b": one}).encode()) + bytes(8))
    with pytest.raises(BrokenFileError, match="'b' where it overlaps 'a'"):
        read_header(str(tmp_path / "x.safetensors"))
    text = json.dumps({"a": one})[:-1] + ", " + json.dumps({"a": one})[1:]
    (tmp_path / "x.safetensors").write_bytes(header(text.encode()) + bytes(8))
    with pytest.raises(BrokenFileError, match="twice"):
        read_header(str(tmp_path / "x.safetensors"))
