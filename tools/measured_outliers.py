"""Why published measurements lie further than a quarter from what is predicted: what is not known of them, or what
the formula lacks. Found by reading the trainers' sources; nothing is computed from these words."""

from __future__ import annotations

from tools.published_memory import Case


def why(case: Case) -> str:
    """The reason, or that there is none yet."""
    return "not explained"
