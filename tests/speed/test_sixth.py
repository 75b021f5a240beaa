"""A sixth gathering of published steps, predicted before anybody looked; it judges widths made without it."""

from __future__ import annotations

from tools.speed_firsts import SETS
from tools.speed_later import GATHERED, SIXTH, UNSEEN, later, set_up
from tools.speed_widths import by_shipped, held_said

from .gathered import agreement, check_tables


def test_predictions_are_kept_and_said() -> None:
    blind_row, said = check_tables(SIXTH, "sixth", (46, 12, 26))
    assert f", {said.split(', ')[0]} and " in blind_row
    assert f", {said.split(', ')[1]} and " in blind_row


def test_nothing_rests_on_it() -> None:
    """No rate, and no width: it judges them."""
    known = {case.source for name in (*GATHERED, UNSEEN) for case in later(name)}
    assert not known & {case.source for case in later(SIXTH)}
    assert SIXTH not in (*GATHERED, *SETS)


def test_what_the_widths_hold_of_it_is_said() -> None:
    row = agreement("sixth")
    assert (
        f"made without them {held_said(by_shipped(SIXTH))}, guessed {held_said(by_shipped(SIXTH, False))}"
        in row
    )


def test_set_ups_parse() -> None:
    for case in later(SIXTH):
        assert set_up(case).setup.gpus == case.gpus
