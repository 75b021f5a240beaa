"""Parts of a step by hand: tiles and waves, the optimizer's passes, attention's rate, 8 bits, gathering."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import replace

import pytest

from planner import estimate, facts, hardware
from planner.adapter import AdapterSpec, adapt
from planner.estimator import load
from planner.schema import Attend
from planner.search.api import accelerators
from planner.setup import Setup
from planner.speed import step_time
from planner.speed.communication import gathers
from planner.speed.efficiency import constants
from planner.speed.roofline import CPU_STEP_S, DEEPSPEED_STEP_S, MASKED, Rates, attention_share, gemm_s, rates
from planner.speed.step import step_bytes, work_of
from planner.speed.styles import (
    CAPPED_SCORES,
    CAST,
    COMPILED_LOSS,
    EAGER_SCORES,
    LOSS,
    compiles_loss,
    loss_cost,
    optimizer_bytes,
    takes_mask,
    wide_between,
)
from planner.speed.walk import thin, tiled
from planner.speed.work import Gemm, Linear

ARCH = load("meta-llama/Llama-3.1-8B")[1]
A100, H100, B200 = (hardware.cluster(hardware.find(name)) for name in ("a100 80gb", "h100", "b200"))


def test_tiles_cover_a_product() -> None:
    """100 x 512 by 512 x 300: 1 x 3 tiles of 128; 200 rows in two sequences of 100 keep the 28 spare ones."""
    found = tiled(Linear(0.0, 100.0), 512, 300, 2)
    assert found.flops.at(1) == 2 * 100 * 512 * 300
    assert found.tiled.at(1) == 2 * (512 + 256) * 128 * 384 and found.tiled.at(2) == 2 * 768 * 228 * 384
    assert found.tile == 2 * 768 * 128 * 128 and tiled(Linear(0, 128), 512, 300, 2, 8).tile == found.tile / 8
    assert tiled(Linear(0.0, 256.0), 512, 256, 2).tiled.at(3) == 2 * 768 * 768 * 256
    low = thin(Linear(0.0, 100.0), 512, 16, 2)
    assert low.tiled == low.flops and low.tile == 0.0


def test_a_product_waits_for_its_last_wave() -> None:
    """Half of 108 tiles idle beside 4 that work: 58 tiles' FLOPs at 100 TFLOP/s; or the bytes, if longer."""
    product = tiled(Linear(0.0, 256.0), 768, 256, 2)
    known = Rates({("base", "bfloat16"): 1e14}, 1e12, 1e12, 54.0)
    seconds = gemm_s(Gemm("base", "forward", "bfloat16", 3.0, product), 1, known)
    assert seconds == pytest.approx(3 * (4 + 54) * 2 * 1024 * 128**2 / 1e14)
    slow = replace(known, bytes_per_s=1e9)
    assert gemm_s(Gemm("base", "forward", "bfloat16", 1.0, product), 1, slow) == pytest.approx(
        2 * (256 * 768 + 768 * 256 + 256 * 256) / 1e9
    )


def test_a_compiled_loss_moves_logits_once() -> None:
    """Read for the maximum and the sum, read and written for the gradient; a loop's own loss is not compiled."""
    assert loss_cost("full", True) == loss_cost("chunked", True) == COMPILED_LOSS
    assert (COMPILED_LOSS.forward_bytes, COMPILED_LOSS.backward_bytes) == (2 + 2, 2 + 2)
    assert loss_cost("full", False) == LOSS["full"] and loss_cost("fused", True) == LOSS["fused"]
    loop = Setup(seq_len=512, kernels="compiled", trainer="hf-loop")
    assert compiles_loss(loop) and not compiles_loss(replace(loop, trainer="plain"))
    assert not compiles_loss(replace(loop, kernels="fused"))


def test_an_optimizer_moves_what_its_kernel_does() -> None:
    """AdamW fused reads gradient, parameter and moments and writes all but the gradient; DeepSpeed's 16 bits have
    float32 copies."""
    assert (
        optimizer_bytes("adamw", "fused", 4) == 7 * 4 and optimizer_bytes("paged-adamw", "foreach", 2) == 40
    )
    assert optimizer_bytes("adamw-8bit", "fused", 2) == 10 and optimizer_bytes("lion-8bit", "fused", 4) == 14
    full = Setup(method="full")
    assert step_bytes(full) == 14
    assert (
        step_bytes(replace(full, gpus=2, sharding="zero2"))
        == step_bytes(replace(full, precision="bf16-master"))
        == 28
    )


def test_attention_keeps_an_a100s_pace_without_newer_instructions() -> None:
    efficiency = constants().efficiency
    flash, native = Setup(attention_kernel="flash"), Setup(attention_kernel="sdpa")
    shares = [attention_share(m.accelerator, efficiency, flash) for m in (A100, H100, B200)]
    assert shares == pytest.approx([efficiency.attention * part for part in (1, 1 / 2, 1 / 4)])
    assert attention_share(A100.accelerator, efficiency, native) == efficiency.attention
    assert attention_share(H100.accelerator, efficiency, native) == efficiency.attention_native
    gaudi = hardware.find("gaudi 3")
    assert attention_share(gaudi, efficiency, flash) == efficiency.attention


def test_padded_batches_run_the_kernel_that_takes_a_mask() -> None:
    """PyTorch's own attention over all n^2 pairs instead of n (n + 1) / 2, at half the pace of flash attention 2; one
    sequence needs no mask, and flash attention takes lengths."""
    padded = Setup(packing="padded", micro_batch=2, seq_len=256)
    others = (replace(padded, micro_batch=1), replace(padded, packing="full"), replace(padded, packing="packed"),
              replace(padded, attention_kernel="flash"))  # fmt: skip
    assert takes_mask(padded) and not any(takes_mask(setup) for setup in others)
    works = [work_of(ARCH, setup) for setup in (padded, replace(padded, packing="full"))]
    kinds = [{gemm.kind for gemm in work.gemms} for work in works]
    assert "masked" in kinds[0] and "attention" not in kinds[0] and "masked" not in kinds[1]
    flops = [
        sum(g.calls * g.flops.at(1) for g in work.gemms if g.kind in ("masked", "attention"))
        for work in works
    ]
    assert flops[0] / flops[1] == pytest.approx(2 * 256 / 257)
    efficiency, flash = constants().efficiency, Setup(attention_kernel="flash")
    for machine in (A100, H100):
        known = rates(machine, works[0], efficiency, padded)
        peak = hardware.matmul_flops_per_s(machine.accelerator, "bfloat16")
        expected = MASKED * attention_share(machine.accelerator, efficiency, flash) * peak
        assert known.products["masked", "bfloat16"] == pytest.approx(expected)
    full, slow = (step_time(ARCH, setup, A100).seconds for setup in (replace(padded, packing="full"), padded))
    assert slow > full


def test_capped_scores_take_three_passes_more() -> None:
    """Of Gemma 2's eager attention; Llama's has none."""
    eager = Setup(attention_kernel="eager", seq_len=128)
    for name, capped in (("google/gemma-2-9b-it", 1), ("google/gemma-7b", 0)):
        arch = load(name)[1]
        heads = sum(
            len(b.layers) * op.n_heads for b in arch.blocks for op in b.operations if isinstance(op, Attend)
        )
        moved = {
            s.phase: s.bytes.at(1)
            for s in work_of(arch, replace(eager, method="full")).sweeps
            if s.what == "scores"
        }
        for phase in ("forward", "backward"):
            each = getattr(EAGER_SCORES, f"{phase}_bytes") + capped * getattr(CAPPED_SCORES, f"{phase}_bytes")
            assert moved[phase] == pytest.approx(heads * 128**2 * each)


def test_all_but_quantised_products_is_float32_without_autocast() -> None:
    """As PEFT prepares a quantised model: the same products, attention and unembedding in float32, each quantised one
    cast into and out of; autocast takes them back to 16 bits."""
    pairs = adapt(ARCH, AdapterSpec(8))
    setup = Setup(method="qlora", quantize="nf4", upcast_small=True, seq_len=512, adapter_dtype="float32")
    others = (
        replace(setup, autocast=True),
        replace(setup, upcast_small=False),
        replace(setup, precision="fp32"),
    )
    assert wide_between(setup) and not any(wide_between(other) for other in others)
    wide, under = (work_of(ARCH, s, pairs) for s in (setup, others[0]))
    by_type = [{d: sum(g.calls * g.flops.at(1) for g in w.gemms if g.kind != "adapter" and g.dtype == d)
                for d in ("float32", "bfloat16")} for w in (wide, under)]  # fmt: skip
    assert sum(by_type[0].values()) == pytest.approx(sum(by_type[1].values())) and by_type[1]["float32"] == 0
    head = 2 * 2 * 512 * 4096 * 128256  # forward, and the gradient of its input
    scores = 2 * 32 * 32 * (512 * 513 / 2) * 128 * (2 + 5)  # two products forward, five backward
    assert by_type[0]["float32"] == pytest.approx(head + scores)
    moved = {(x.what, x.phase): x.bytes.at(1) for x in wide.sweeps}
    elements = 512 * sum(
        m.copies * (m.d_in + m.d_out) for m in ARCH.matrices if m.role in ("attention", "mlp")
    )
    assert moved["quantise", "forward"] == pytest.approx(CAST.forward_bytes * elements)
    slow, fast = (step_time(ARCH, s, A100, pairs) for s in (setup, others[0]))
    assert slow.seconds > 1.2 * fast.seconds
    assert "float32-between" in {n.code for n in slow.notices} - {n.code for n in fast.notices}


def test_eight_bits_are_a_path_of_their_own() -> None:
    """The same FLOPs as in 16 bits, at 1.67 times their rate (GeForce cards 3.34), and 26 bytes an output more, which
    products of 2,048 do not win back (the paper: half as fast)."""
    pairs = adapt(ARCH, AdapterSpec(16))
    plain = Setup(method="qlora", quantize="nf4", seq_len=1024)
    eight = replace(plain, quantize="int8")
    sixteen = work_of(ARCH, replace(plain, method="lora", quantize="none"), pairs)
    found = work_of(ARCH, eight, pairs)
    assert found.flops(2) == pytest.approx(sixteen.flops(2), rel=1e-12)
    outputs = sum(m.d_out * m.copies for m in ARCH.matrices if m.role in ("attention", "mlp"))
    sweeps = {(s.what, s.phase): s.bytes for s in found.sweeps}
    assert sweeps["quantise", "forward"].at(1) == pytest.approx(26 * 1024 * outputs)
    assert ("dequantise", "forward") not in sweeps
    old = work_of(ARCH, replace(eight, trainer="hf-trainer-4"), pairs)
    undone = {(s.what, s.phase): s.bytes for s in old.sweeps}["dequantise", "backward"].fixed
    assert undone == pytest.approx(sweeps["quantise", "backward"].fixed * 22 / 7)
    for gpu, faster in (
        ("a100-80gb", 1.67), ("l40s", 1.67), ("rtx-6000-ada", 1.67), ("rtx-3090", 3.34), ("mi250x", 0.835),
        ("b300", 0.835 * 150 / 2250),
    ):  # fmt: skip
        known = rates(hardware.cluster(hardware.find(gpu)), found, constants().efficiency, eight).products
        half = rates(hardware.cluster(hardware.find(gpu)), sixteen, constants().efficiency, eight).products[
            "base", "bfloat16"
        ]
        assert known["base", "int8"] / half == pytest.approx(faster, rel=0.01), gpu
    small = load("meta-llama/Llama-3.2-1B")[1]
    few = adapt(small, AdapterSpec(16))
    lora = replace(plain, method="lora", quantize="none", micro_batch=4)
    assert (
        step_time(small, replace(eight, micro_batch=4), A100, few).seconds
        > step_time(small, lora, A100, few).seconds
    )


def test_gathering_hides_behind_computing() -> None:
    """The host gathers units while the GPU computes: a long step pays for none of them, a short one for all."""
    many = replace(H100, count=8, per_node=8)
    full = Setup(method="full", gpus=8, sharding="fsdp", seq_len=64, trainer="megatron")
    short, long = (step_time(ARCH, replace(full, micro_batch=b), many).parts["host"] for b in (1, 512))
    assert short > 0 and long == 0
    units = gathers(ARCH, full, ())
    assert units == 2 * (ARCH.n_layers + 1)
    work = work_of(ARCH, full)
    busy = rates(many, work, constants().efficiency, full)
    assert busy.idle_tiles == pytest.approx(132 * constants().efficiency.wave)


def test_experts_that_run_one_after_another_are_gathered_each() -> None:
    moe = load("Qwen/Qwen3-30B-A3B")[1]
    setup = Setup(method="full", gpus=8, sharding="zero3")
    apart, together = (gathers(moe, replace(setup, kernels=k), ()) for k in ("transformers", "fused"))
    layers = 48
    assert (
        apart - together == 2 * layers * (128 * 3 - 2) > 10_000
    )  # gate, up and down of 128 experts; or two tensors
    again = gathers(moe, replace(setup, checkpointing="layer"), ())
    assert again == apart * 3 / 2
    pairs = adapt(moe, AdapterSpec(8, layers=("mlp",), experts="per-expert"))
    lora = replace(setup, method="lora")
    assert gathers(moe, lora, pairs) - apart == 2 * 2 * layers * 128 * 3  # two factors of each of them


def test_an_offloaded_optimizer_steps_on_the_processors() -> None:
    """32 bytes a parameter at 125 GB/s, under DeepSpeed 46 at 70, all parameters of 8 GPUs on their processors."""
    many = replace(A100, count=8, per_node=8)
    setup = Setup(method="full", gpus=8, sharding="zero3", micro_batch=8, checkpointing="layer")
    kept, away = (
        step_time(ARCH, replace(setup, offload=o), many).parts["host"] for o in ("none", "optimizer")
    )
    assert away - kept == pytest.approx(ARCH.params * DEEPSPEED_STEP_S, rel=1e-9)
    fsdp = replace(setup, sharding="fsdp")
    kept, away = (
        step_time(ARCH, replace(fsdp, offload=o), many).parts["host"] for o in ("none", "optimizer")
    )
    assert away - kept == pytest.approx(ARCH.params * CPU_STEP_S, rel=1e-9)
    assert ARCH.params * CPU_STEP_S == pytest.approx(2.06, rel=0.01)


def test_deepspeed_steps_as_long_as_published() -> None:
    """The constant is the middle of published times, which follow from what each source says."""
    rows = list(csv.DictReader(io.StringIO(facts.read_data("measured", "offloaded_steps.csv"))))
    found = []
    for row in rows:
        added, copied, params = (float(row[name]) for name in ("added_s", "copied_s", "params"))
        found.append((added - copied) / params * int(row["machines"]))
        assert found[-1] * 1e9 == pytest.approx(float(row["ns_a_parameter"]), abs=0.006)
    assert statistics.median(found) == pytest.approx(DEEPSPEED_STEP_S, rel=0.01)
    assert min(found) < DEEPSPEED_STEP_S < max(found)


def test_offloading_adds_what_deepspeed_measured() -> None:
    """Qwen2.5-1.5B on two A100s under ZeRO-2: 240 ms a step, 1,365 with states offloaded (its core-binding blog)."""
    arch = load("Qwen/Qwen2.5-1.5B")[1]
    two = replace(hardware.cluster(hardware.find("a100 40gb")), count=2, per_node=2)
    setup = Setup(
        method="full", gpus=2, sharding="zero2", micro_batch=4, seq_len=512, precision="bf16-master"
    )  # 8 a step
    kept, away = (step_time(arch, replace(setup, offload=o), two).seconds for o in ("none", "optimizer"))
    assert away - kept == pytest.approx(1.125, rel=0.15)


@pytest.mark.parametrize("gpu", ["gaudi 3", "TPU v5e"])
def test_a_rate_in_int8_that_no_source_states_is_not_guessed(gpu: str) -> None:
    """There is no time, which is said, and no cost; memory stays; a search over any GPU leaves such out."""
    found = estimate("meta-llama/Llama-3.1-8B", quantize="int8", gpu=gpu)
    assert found.time is None and found.cost is None and found.memory and found.memory["qlora"]
    assert any("int8 rate" in note.message for note in found.warnings if note.code == "no-time")
    assert estimate("meta-llama/Llama-3.1-8B", quantize="nf4", gpu=gpu).time is not None
    every = {each.name for each in accelerators("any", 1.0, "bfloat16")}
    fewer = {each.name for each in accelerators("any", 1.0, "bfloat16", "none,int8")}
    assert hardware.find(gpu).name in every - fewer
