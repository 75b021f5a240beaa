"""What torch's caching allocator reserves: worked by hand from its rules, and by the order of lengths."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.running import running
from planner.simulate.allocator import MIB, CachingAllocator, OutOfMemoryError
from planner.simulate.core import simulate_step
from planner.simulate.timeline import PARTS
from planner.trainers import filled
from tools.lengths_kept import kept
from tools.reserved_by_lengths import LEAST, LONG, Step, lengths, longer, record, reserved

ROOM = 2**40


def test_requests_come_from_segments_by_their_size() -> None:
    """512 bytes from 2 MiB; 2 MiB from 20 MiB, as are 9; 10.1 MiB from 12; 33 from 34."""
    allocator = CachingAllocator(ROOM)
    for size, more in ((1, 2), (2 * MIB, 20), (9 * MIB, 0), (int(10.1 * MIB), 12), (33 * MIB, 34)):
        before = allocator.reserved
        allocator.take(size)
        assert allocator.reserved - before == more * MIB
    # 1 byte is 512; of 12 MiB the rest is split off, of 34 not: no more than 1 MiB is left.
    assert allocator.allocated == 512 + (2 + 9 + 34) * MIB + -(-int(10.1 * MIB) // 512) * 512


def test_the_smallest_free_block_that_fits_is_split_and_joins_again() -> None:
    allocator = CachingAllocator(ROOM)
    first, second = allocator.take(40 * MIB), allocator.take(30 * MIB)
    allocator.give(first)
    allocator.give(second)
    one, two = allocator.take(12 * MIB), allocator.take(14 * MIB)  # both of the 30
    assert allocator.reserved == 70 * MIB
    other = allocator.take(35 * MIB)  # of the 40
    assert allocator.reserved == 70 * MIB
    for block in (one, other, two):
        allocator.give(block)
    allocator.take(30 * MIB)
    allocator.take(40 * MIB)
    assert allocator.reserved == 70 * MIB
    allocator.take(2 * MIB)
    assert allocator.reserved == 90 * MIB


def test_segments_of_which_nothing_is_used_are_given_back_where_room_is_short() -> None:
    allocator = CachingAllocator(100 * MIB)
    whole, part = allocator.take(40 * MIB), allocator.take(40 * MIB)
    allocator.give(whole)
    allocator.give(part)
    allocator.take(20 * MIB)  # splits one of them
    allocator.take(60 * MIB)  # the other goes back
    assert (allocator.reserved, allocator.most_reserved) == (100 * MIB, 100 * MIB)
    with pytest.raises(OutOfMemoryError):
        allocator.take(30 * MIB)


def test_longer_samples_later_reserve_more() -> None:
    """Two tensors at a time that grow with the length: 11 and 22 MiB for each 1,000 tokens. The longest first needs
    its own alone; in rising order blocks of one length are too short for the next."""
    step = Step((), ((0, 11 * MIB / 1000), (0, 22 * MIB / 1000)), (1, 2, -1, -2))
    falling = reserved(step, (4000, 3000, 2000, 1000), ROOM)
    assert falling == (132 * MIB, 132 * MIB)
    allocated, held = reserved(step, (1000, 2000, 3000, 4000), ROOM)
    # 12 + 22; 22 fits, 44 new; 33 from 44, 66 new; 44 and 88: 44 from 66's, 88 new.
    assert allocated == 132 * MIB
    assert held == (12 + 22 + 44 + 66 + 88) * MIB


def test_samples_that_can_need_more_are_those_longer_than_all_before_and_some_after() -> None:
    assert longer([5, 3, 4, 9, 1, 2, 3, 4, 5], after=2) == [5, 3, 4, 9, 1, 2]
    step = Step((), ((0, 11 * MIB / 1000), (0, 22 * MIB / 1000)), (1, 2, -1, -2))
    order = lengths(LONG, 3)
    some, every = longer(order), reserved(step, order, ROOM)
    assert len(some) < len(order) / 10
    assert reserved(step, some, ROOM) == every


def test_what_lengths_leave_by_the_data_is_near_what_the_allocator_keeps() -> None:
    """Of a small model, of each spread, within what orders differ by: a third to three times."""
    model = "HuggingFaceTB/SmolLM2-135M"
    options = {"trainer": "trl-0.21", "method": "lora", "checkpointing": "layer", "seq_len": 256}
    found = dict(kept(model, options, 200))
    assert set(found) == {"even", "mostly short", "log-normal", "near one", "cut"}
    for name in ("even", "mostly short", "log-normal", "near one"):
        each = found[name]
        assert min(each.orders) / 2 <= each.told <= 2 * max(each.orders), name
    assert found["cut"].told < min(each.told for name, each in found.items() if name != "cut")
    assert min(found["near one"].orders) > max(found["cut"].orders)


def test_a_step_of_many_lengths_is_that_of_one_length_where_all_are_alike() -> None:
    config = {
        "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 512, "vocab_size": 1000, "num_key_value_heads": 4,
    }  # fmt: skip
    options = {"trainer": "ms-swift-2024", "rank": 8, "targets": "q_proj", "batch": 2, "accumulation": 2}
    found = running(config, {**options, "seq_len": 2048})
    step = record(config, found.spec, found.setup, found.arch)
    top = reserved(step, (2048,), ROOM)[0] - sum(step.weights)
    parts = simulate_step(config, found.spec, found.setup, arch=found.arch).moments["backward"].parts
    made = sum(parts[PARTS.index(each)] for each in ("activations", "logits", "temporary"))
    # Up to 1 MiB of a large block is not split off, and weights are rounded up to 512 bytes.
    assert made <= top <= made + 12 * MIB
    assert reserved(step, (2048, 2048), ROOM) == reserved(step, (2048,), ROOM)


def test_lengths_are_those_of_the_benchmark() -> None:
    found = lengths(LONG, 1)
    assert min(found) >= LEAST
    assert max(found) <= LONG
    assert found != lengths(LONG, 2)
    # 39% of a gamma distribution of that mean and spread lie below 2,048.
    assert len(found) / 4959 == pytest.approx(0.39, abs=0.03)


def test_without_checkpointing_blocks_of_activations_serve_again() -> None:
    """Yi-6B without checkpointing, lengths of ms-swift's benchmark: by the allocator, run apart on 20 orders, 26.1 to
    35.7 GB are reserved up to 2,048 tokens and 19.1 to 24.2 up to 1,024."""
    options = {
        "trainer": "ms-swift-2024", "rank": 8, "targets": "q_proj,k_proj,v_proj", "batch": 16, "accumulation": 16,
        "checkpointing": "none",
    }  # fmt: skip
    for length, low, high in ((2048, 26.07e9, 35.7e9), (1024, 19.1e9, 24.21e9)):
        found = running("01-ai/Yi-6B-Chat", {**options, "seq_len": length}).memory()
        assert low <= found.reserved_bytes <= high


def test_an_option_says_that_lengths_vary() -> None:
    """Nothing more is allocated, more is reserved; packed sequences have one length."""
    options = {"targets": "q_proj", "checkpointing": "layer", "seq_len": 1024}
    same = running("01-ai/Yi-6B-Chat", options).memory()
    varied = running("01-ai/Yi-6B-Chat", {**options, "lengths_vary": True}).memory()
    assert varied.allocated_bytes == same.allocated_bytes
    assert varied.reserved_bytes > same.reserved_bytes
    mapped = running(
        "01-ai/Yi-6B-Chat", {**options, "lengths_vary": True, "expandable_segments": True}
    ).memory()
    assert mapped.reserved_bytes == same.reserved_bytes
    assert filled({"trainer": "unsloth-2025"})["expandable_segments"]
    assert varied.within is not None
    assert varied.within.kind == "unnamed"
    known = (
        running("01-ai/Yi-6B-Chat", {**options, "lengths_vary": True, "trainer": "axolotl"}).memory().within
    )
    assert known and known.kind == "open"
    with pytest.raises(InputError, match="lengths-vary"):
        running("01-ai/Yi-6B-Chat", {**options, "lengths_vary": True, "packing": "packed"})
