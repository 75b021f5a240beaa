"""The sixth set of published memory, predicted twice before it was looked at; docs/agreement.md says how it went."""

from __future__ import annotations

import statistics
from pathlib import Path

from planner.running import running
from tools.measured_rows import SIXTH
from tools.published_memory_later import RUN
from tools.published_memory_readers import GIB
from tools.published_memory_sixth import Pair, both, held, now

ROOT = Path(__file__).parents[1]


def _shown(found: list[Pair]) -> str:
    errors = [abs(s.predicted / c.measured - 1) for c, s in found if c.stated and c.metric not in RUN]
    assert len(errors) == 57
    ninth = sorted(errors)[int(0.9 * len(errors))]
    return (
        f"median error {100 * statistics.median(errors):.0f}%, 90th percentile {100 * ninth:.0f}%, "
        f"{100 * held(found):.0f}% within the interval"
    )


def test_a_sixth_set_predicted_twice() -> None:
    first, second = both()
    assert len(first) == len(second) == 75
    assert [c.number for c, s in (*first, *second) if s.problem] == []
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| the same, on a sixth set |"))
    assert f"blind: {_shown(first)} of then" in row
    assert f"blind again, after the fifth set's mends: {_shown(second)}" in row
    errors = [abs(s.predicted / c.measured - 1) for c, s in now() if c.stated and c.metric not in RUN]
    since = f"median error {100 * statistics.median(errors):.1f}%"
    assert f"{since}, {_shown(now()).split(', ', 1)[1].removesuffix(' the interval')}" in row


def test_its_commands_were_not_changed_since() -> None:
    """What was typed first stands: a profile that came later went beside it, into `now`."""
    commands = [(c.options, c.now) for c, _ in both()[0]]
    assert all(" --trainer " in f" {options}" for options, now in commands if now.startswith("--trainer "))
    recipes = [now for options, now in commands if "--trainer llama-recipes-2023" in options]
    assert len(recipes) == 16 and {now.split(" --packing")[0] for now in recipes} == {
        "--trainer llama-recipes-2024"
    }


def test_reasons_are_given_for_what_is_far() -> None:
    far = {c.number for c, s in now() if c.metric not in RUN and abs(s.predicted / c.measured - 1) > 0.25}
    assert set(SIXTH) <= far


def test_llama_recipes_of_2024_as_it_prints_its_memory() -> None:
    """int() of GiB that torch allocated, and the same, by the same notes, of runs that are in no set."""
    own = [(c, s) for c, s in now() if "llama-recipes" in c.now and c.method != "qlora"]
    assert len(own) == 14 and max(abs(s.predicted / c.measured - 1) for c, s in own) <= 0.16
    allocated = [(c, s) for c, s in own if c.metric == "allocated"]
    assert max(abs(s.predicted / c.measured - 1) for c, s in allocated) <= 0.05
    options = {
        "method": "lora", "trainer": "llama-recipes-2024", "targets": "q_proj,v_proj", "rank": 8,
        "lora_dropout": 0.05, "seq_len": 4096, "sharding": "fsdp",
    }  # fmt: skip
    for gpus, each, printed in ((2, 3, 21), (4, 4, 17), (8, 5, 16), (16, 6, 17)):
        found = running("meta-llama/Llama-2-7b-hf", {**options, "gpus": gpus, "batch": gpus * each}).memory()
        assert abs(found.allocated_bytes / GIB - printed - 0.5) <= 0.75


def test_a_step_of_llama_recipes_of_2024_by_hand() -> None:
    """Full fine-tuning peaks in the optimizer's step: four float32 copies of a quarter of the weights and foreach's
    one more. Nothing of a cache, and no scores."""
    options = {
        "method": "full", "trainer": "llama-recipes-2024", "gpus": 4, "sharding": "fsdp", "batch": 12,
        "seq_len": 4096,
    }  # fmt: skip
    found = running("meta-llama/Llama-2-7b-hf", options).memory()
    assert found.peak.phase == "optimizer"
    assert abs(found.peak.bytes / (5 * 4 * 6_738_415_616 / 4) - 1) < 0.002


def test_the_workspace_of_torch_2_1_is_what_the_notes_could_not_get() -> None:
    """Two sequences asked for 16.13 GiB at once, with 15.59 allocated; one took 19 and a fraction."""
    asked = 2 * (2 * (4096 // 64) + 1) * 32 * 4096 * 128 * 4 / GIB
    assert round(asked, 2) in (16.12, 16.13)
    standing = 7.05
    assert 19 <= standing + (15.59 - standing) / 2 + asked / 2 < 20


def test_universal_llm_trainer_holds_16_bit_logits() -> None:
    """By hand, Llama-3.1-8B with LoRA, two sequences of 8,192 (src/models/llama3.py, forward): bfloat16 weights,
    inputs of 32 layers, and on the way back log-probabilities and two gradients of them, two bytes each."""
    own = [(c, s) for c, s in now() if "universal-llm-trainer" in c.now and c.metric not in RUN]
    far = {c.number for c, s in own if abs(s.predicted / c.measured - 1) > 0.2}
    assert len(own) == 16 and far == {523} and 523 in SIXTH
    options = {
        "method": "lora", "trainer": "universal-llm-trainer", "precision": "bf16", "packing": "padded", "rank": 8,
        "targets": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj", "batch": 64,
        "accumulation": 32, "seq_len": 8192,
    }  # fmt: skip
    found = running("meta-llama/Llama-3.1-8B", options).memory()
    weights, inputs, logits = 2 * 8_030_261_248, 32 * 2 * 8192 * 4096 * 2, 3 * 2 * 8192 * 128_256 * 2
    states = 4 * 4 * 20_971_520  # float32 pairs, their gradients, Adam's two
    loss = next(m for m in found.moments if m.phase == "loss")
    assert abs(loss.bytes / (weights + inputs + logits + states) - 1) < 0.02
    assert found.setup.reentrant and not found.setup.outputs_held and not found.setup.autocast


def test_prime_rl_as_its_benchmark_reports_it() -> None:
    """Reserved bytes of 21 runs: one and eight GPUs, all losses, with and without offload, and experts."""
    errors = sorted(abs(s.predicted / c.measured - 1) for c, s in now() if "prime-rl" in c.now)
    assert len(errors) == 21 and errors[-1] <= 0.18 and statistics.median(errors) <= 0.06
