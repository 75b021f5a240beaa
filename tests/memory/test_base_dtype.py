"""A base in 16 bits of the other kind than autocast computes in: bfloat16 weights, as transformers 5 loads them,
trained with fp16=True on a T4, or float16 ones with bf16=True. Against the step simulated and a real one on the
CPU."""

from __future__ import annotations

from typing import Any

import pytest

from planner.errors import InputError
from planner.estimator import load
from planner.memory.peak import WORKSPACES
from planner.running import Running, running
from planner.setup import Setup

torch: Any = pytest.importorskip("torch")
OTHER = {"fp16": "bfloat16", "bf16": "float16"}
PAIRS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def ran(model: Any, precision: str, base: str | None, **others: Any) -> Running:
    asked = {
        "method": "lora", "precision": precision, "autocast": True, "batch": 2, "seq_len": 512, "rank": 16,
        "targets": PAIRS, "base_dtype": base, **others,
    }  # fmt: skip
    return running(model, {name: value for name, value in asked.items() if value is not None})


def allocated(run: Running) -> int:
    return run.memory().allocated_bytes - WORKSPACES * run.setup.workspace_bytes


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.2-1B", "Qwen/Qwen3-0.6B", "google/gemma-2-2b"])
@pytest.mark.parametrize("checkpointing", ["none", "layer"])
@pytest.mark.parametrize("precision", OTHER)
def test_as_it_is_simulated(model: str, checkpointing: str, precision: str) -> None:
    from planner.simulate.core import simulate_step

    run = ran(model, precision, OTHER[precision], checkpointing=checkpointing)
    found = simulate_step(load(model)[0].config, run.spec, run.setup, arch=run.arch).peak.bytes
    assert allocated(run) == pytest.approx(found, rel=0.01)
    assert allocated(run) > 1.08 * allocated(ran(model, precision, None, checkpointing=checkpointing))


def test_every_matrix_is_cast_and_kept() -> None:
    """A real step on the CPU under torch's own autocast: what autograd saves holds a cast of each frozen matrix that
    a gradient passes, beside the base, which none of the same kind has."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=1000, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    saved = {
        kind: _saved(transformers.LlamaForCausalLM(config), kind) for kind in (torch.bfloat16, torch.float16)
    }
    layer = 4 * 256 * 256 + 3 * 256 * 704
    # The first layer's q, k and v read an embedding without a gradient, and pass none.
    cast = 3 * layer - 3 * 256 * 256 + 256 * 1000
    assert saved[torch.bfloat16] == 0 and saved[torch.float16] == 2 * cast


def _saved(model: Any, held: Any) -> int:
    """Bytes of casts of frozen matrices that autograd saves in a forward pass under bfloat16 autocast; the last
    layers' norms are trained, so that a gradient passes all of them but the first layer's inputs."""
    model = model.to(held)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in model.model.layers:  # an adapter's part: something trained at each layer's first product
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, args: (args[0] + trained(args[0]),))
    made = torch.nn.Parameter(torch.zeros(1))

    def trained(x: Any) -> Any:
        return made.to(x.dtype)

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {
        tuple(sorted(p.shape)) for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name
    }
    found: dict[int, int] = {}

    def pack(x: Any) -> Any:
        storage = x.untyped_storage()
        if x.ndim == 2 and tuple(sorted(x.shape)) in shapes and storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    ids = torch.randint(0, 1000, (1, 8))
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        kept.append(model(input_ids=ids, labels=ids).loss)
    return sum(found.values())


def test_what_is_not_modelled_is_refused() -> None:
    with pytest.raises(InputError, match="--autocast with --precision"):
        Setup(precision="fp16", base_dtype="bfloat16")
    with pytest.raises(InputError, match="--precision autocast"):
        Setup(precision="bf16", autocast=True, base_dtype="float32")
    with pytest.raises(InputError, match="an adapter by transformers' kernels"):
        Setup(method="full", precision="fp16", autocast=True, base_dtype="bfloat16")
    assert Setup(precision="bf16", base_dtype="bfloat16").weight_dtype == "bfloat16"


def test_an_export_refuses_it() -> None:
    from planner.exports.training import training_of

    asked = {"precision": "fp16", "autocast": True, "layers": "attention,mlp"}
    with pytest.raises(InputError, match="base-dtype: found 'bfloat16'"):
        training_of("Qwen/Qwen3-0.6B", {**asked, "base_dtype": "bfloat16"})
    assert training_of("Qwen/Qwen3-0.6B", asked).setup.base_dtype is None


def test_full_fine_tuning_has_no_frozen_base() -> None:
    assert ran("Qwen/Qwen3-0.6B", "fp16", "bfloat16", method="full").setup.base_dtype is None
