"""Published times of steps with images: what the page shows is what is predicted, of rows that say what they take."""

from __future__ import annotations

import pytest

from planner.speed import tokens_of
from tools.compare_pictured import BEGIN, END, PAGE, PICTURED, table
from tools.speed_later import GATHERED, UNSEEN, later, said_of, set_up


def test_the_page_shows_what_is_predicted() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == table()
    assert PICTURED not in (*GATHERED, UNSEEN)


def test_every_row_has_images_and_a_time() -> None:
    """Its time follows from what its notes say, and its images are part of what is walked."""
    for case in later(PICTURED):
        assert case.url.startswith("https://") and case.notes and not case.stated
        one = set_up(case)
        assert one.arch.images and one.arch.images.tokens < one.setup.seq_len
        assert tokens_of(one.setup) == one.setup.seq_len * one.setup.global_batch * (
            one.setup.sequences / one.setup.micro_batch
        )
        said = said_of(case)
        assert not said.problem and said.low < said.seconds < said.high


def test_llavas_first_stage_lies_near() -> None:
    """Where next to nothing is taken: 3.5 and 5.5 hours of 2,180 steps of 256 images on eight A100s."""
    found = [case for case in later(PICTURED) if "multi_modal_projector" in case.options]
    assert [case.measured for case in found] == pytest.approx(
        [3.5 * 3600 / 2180, 5.5 * 3600 / 2180], rel=1e-3
    )
    for case in found:
        said = said_of(case)
        assert said.inside and said.error < 0.2
