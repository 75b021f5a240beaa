"""What `tools/try_trainers.py` counts in the adapter that a trainer saved."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tools.try_trainers import CASES, saved_parameters


def test_the_frozen_weight_beside_a_pair_is_not_counted(tmp_path: Path) -> None:
    shapes = {
        "lm_head.lora_A.weight": [4, 8], "lm_head.lora_B.weight": [32, 4], "lm_head.base_layer.weight": [32, 8],
        "experts.base_layer.lora_A.weight": [2, 8],  # PEFT nests what stands on one module's parameters
    }  # fmt: skip
    tensors = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    assert saved_parameters(tmp_path) == (4 * 8 + 32 * 4 + 2 * 8, 3)
    assert saved_parameters(tmp_path / "nothing") == (None, None)


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 20
