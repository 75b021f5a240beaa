"""A model folder that carries its own code: run where the user says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from planner.cli.main import main

pytest.importorskip("torch")

CODE = """
import pathlib
import torch
from transformers import PretrainedConfig, PreTrainedModel

pathlib.Path({marker!r}).touch()

class OddConfig(PretrainedConfig):
    model_type = "odd_one"

    def __init__(self, width=12, vocab_size=30, **more):
        self.hidden_size, self.vocab_size, self.num_hidden_layers = width, vocab_size, 1
        super().__init__(**more)

class OddForCausalLM(PreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.proj = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.table

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids):
        return {{"logits": self.lm_head(self.proj(self.table(input_ids)))}}
"""


def with_code(folder: Path, marker: Path) -> Path:
    """A model folder with a config and code that leaves a mark where it is run."""
    folder.mkdir()
    (folder / "modeling_odd.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    auto = {"AutoConfig": "modeling_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
    config = {"model_type": "odd_one", "architectures": ["OddForCausalLM"], "auto_map": auto, "width": 12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_code_of_a_repository_is_run_where_the_user_says_so_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import dynamic_module_utils

    # Where transformers copies code to and imports it from.
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    marker = tmp_path / "ran"
    command = ["estimate", "--json", "--model", str(with_code(tmp_path / "odd", marker))]
    with pytest.raises(SystemExit) as refused:
        main(command)
    assert refused.value.code == 2 and "--trust-remote-code" in capsys.readouterr().err
    assert not marker.exists()
    with pytest.raises(SystemExit) as done:
        main([*command, "--trust-remote-code", "--layers", "all-linear", "--rank", "2"])
    printed = capsys.readouterr()
    assert done.value.code == 0, printed.err
    found = json.loads(printed.out)
    assert marker.exists() and found["model"]["params"] == 2 * 12 * 30 + 12 * 12 + 12
    assert found["adapter"]["params"] == 2 * (12 + 12)
