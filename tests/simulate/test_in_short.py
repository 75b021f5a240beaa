"""A simulation in a process of its own, which imports in short, against one in this process, which does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from planner.architecture.meta import lighter
from planner.setup import Setup
from planner.simulate import simulate
from planner.simulate.optimizers import PLACE, optimizer_step
from planner.simulate.timeline import Recording, stretches
from planner.simulate.tracker import Tracker, _dense

CODE = """
import json, sys
from planner.cli import main
sys.modules["planner.cli.main"]._leave = sys.exit  # so that what is loaded can be looked at
try:
    for words in json.loads(sys.argv.pop()):
        sys.argv[1:] = words
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        print(chr(30))
finally:
    heavy = {"sympy.core", "torch._dynamo.convert_frame", "scipy.linalg", "torch.distributed.tensor._api"}
    print(sorted(heavy.intersection(sys.modules)), file=sys.stderr)
"""
MODEL = "HuggingFaceTB/SmolLM2-135M"


HELIUM = {
    "model_type": "helium", "architectures": ["HeliumForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320,
}  # fmt: skip
compared = pytest.mark.skipif(not lighter.compared(), reason="versions that were not compared")


# Of one model, run one after the other in one process, whose imports are made once.
TOGETHER: dict[str, tuple[list[str], dict[str, Any]]] = {
    "checkpointed": (["--checkpointing"], {"checkpointing": True}),
    "two sequences": (["--batch=2"], {"batch": 2}),
    "three methods": (
        ["--methods=lora,full,qlora", "--seq-len=256"],
        {"methods": ("lora", "full", "qlora"), "seq_len": 256},
    ),
}


def printed(model: str, each: Sequence[Sequence[str]], cache: Path) -> list[dict[str, Any]]:
    """What commands print of a model, in a process that keeps nothing of what is left out."""
    lines = [["simulate", "-m", model, "--methods=lora", *words, "--json"] for words in each]
    env = {**os.environ, "LORA_PLAN_CACHE": str(cache)}
    command = [sys.executable, "-c", CODE, json.dumps(lines)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert run.stderr == "[]\n"
    texts = run.stdout.split(chr(30))[:-1]
    assert len(texts) == len(each)
    return [{**json.loads(text), "seconds": 0} for text in texts]


def found(model: str, **words: Any) -> dict[str, Any]:
    """The same in this process, which imports as usual."""
    found: dict[str, Any] = json.loads(json.dumps(simulate(model, **{"methods": "lora", **words}).to_dict()))
    return {**found, "seconds": 0}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the commands of TOGETHER print."""
    each = [words for words, _ in TOGETHER.values()]
    return dict(zip(TOGETHER, printed(MODEL, each, tmp_path_factory.mktemp("cache")), strict=True))


@compared
@pytest.mark.parametrize("name", TOGETHER)
def test_a_command_prints_what_a_program_finds(name: str, together: dict[str, dict[str, Any]]) -> None:
    assert together[name] == found(MODEL, **TOGETHER[name][1])


@compared
def test_so_it_does_of_a_model_that_is_read_off_transformers_first(tmp_path: Path) -> None:
    """Which imports in short once for the inventory and once more for the step."""
    (tmp_path / "config.json").write_text(json.dumps(HELIUM))
    model = str(tmp_path)
    assert printed(model, [["--seq-len=32"]], tmp_path / "cache") == [found(model, seq_len=32)]


@pytest.mark.parametrize("dtype", ["bf16", "bf16-master", "fp32"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fused_states_are_those_of_torch_s_fake_tensors(optimizer: str, dtype: Any) -> None:
    """Tensors that say they are the CPU's against torch's own fake ones, through the same optimizers."""
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    shapes = [(300, 70), (70,), (50, 300), (4, 3, 5), *3 * [(64, 16), (16, 64)], (64, 16), (8, 200), (16, 64)]
    parameters = [torch.nn.Parameter(torch.empty(shape, dtype=kind, device="meta")) for shape in shapes]
    table = parameters[2]
    setup = Setup(optimizer=optimizer, precision=dtype, optimizer_kernel="fused")  # type: ignore[arg-type]
    matrices = [p for p in parameters if p.dim() == 2 and p is not table] if optimizer == "muon" else []
    with FakeTensorMode():
        held = torch.float32 if dtype == "bf16-master" else kind
        like = {p: torch.empty(p.shape, dtype=held, device="cpu").requires_grad_() for p in parameters}
        for each in like.values():
            each.grad = torch.empty_like(each)
        tracker = Tracker(512, "cpu")
        tracker.ignore((*like.values(), *(each.grad for each in like.values())))
        rest = [like[p] for p in parameters if not any(p is m for m in matrices)]
        optimizers = [torch.optim.Muon([like[p] for p in matrices])] if matrices else []
        optimizers.append(torch.optim.AdamW(rest, fused=True))
        with tracker:
            tracker.enter(PLACE)
            for each in (*optimizers, *optimizers):
                if each is optimizers[0] and each.state:
                    first = len(tracker.recording.events)
                each.step()
        states = (values for each in optimizers for values in each.state.values())
        state = sum(-(-t.numel() * t.element_size() // 512) * 512 for s in states for t in s.values())
    later = Recording(tracker.recording.blocks, tracker.recording.events[first:], [(0, PLACE)])
    copies = sum(p.numel() * 4 for p in parameters) if dtype == "bf16-master" else 0
    extra = sum(stretches(later, {})[0].here.highest)
    found = optimizer_step(parameters, setup, 512, [table])
    assert (found.state_bytes, found.extra_bytes) == (state + copies, extra)
    assert (extra > 0) is bool(matrices)


def test_dense_is_what_torch_calls_so() -> None:
    base = torch.empty(2, 3, 4, device="meta")
    tensors = [
        base, base.mT, base.permute(2, 0, 1), base[:, 1], base[:1], base[:, :, ::2], base.expand(2, 3, 4), base[:0],
        base[:1].expand(5, 3, 4), base.sum(), base[0, 0], base[0, 0, ::2], base.view(2, 3, 4, 1).expand(2, 3, 4, 5),
        torch.empty(1, 1, device="meta").expand(4, 1), torch.empty(5, 1, device="meta")[::2],
    ]  # fmt: skip
    torch_says = torch._prims_common.is_non_overlapping_and_dense_or_false
    assert [_dense(each) for each in tensors] == [torch_says(each) for each in tensors]
    assert {_dense(each) for each in tensors} == {True, False}
