"""Kinds of set-ups: which published measurements tell how far an estimate of memory may be off."""

from __future__ import annotations

# By the trainer's own profile; by none; and whoever trains.
NAMED = ("alone-lora", "alone", "open", "shared", "shared-open", "split")
UNNAMED = ("unnamed", "unnamed-several")
KINDS = (*NAMED, *UNNAMED, "offloaded")
MEASURED = "measured"  # the interval after a measured peak of one's own, whatever its kind

# In few words, for the cell of a table.
KIND_WORDS = {
    "alone-lora": "LoRA, one GPU", "alone": "one GPU", "open": "lengths open", "shared": "several GPUs",
    "shared-open": "lengths open", "split": "split model", "unnamed": "unknown trainer",
    "unnamed-several": "unknown trainer", "offloaded": "offloading", "measured": "measured peak",
}  # fmt: skip
# What makes it narrower, in few words; "" where nothing is known to.
NARROWER = {
    **dict.fromkeys((*KINDS, MEASURED), ""), **dict.fromkeys(UNNAMED, "naming --trainer"),
    "shared-open": "lengths all alike",
}  # fmt: skip

# What a length is to an estimate (`interval.length`), after the number of tokens.
LENGTH_WORDS = {
    "typed": "if reached", "assumed": "assumed", "packed": "packed", "reached": "reached", "shorter": "never reached",
}  # fmt: skip
