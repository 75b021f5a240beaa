"""Kinds of set-ups: which published measurements tell how far an estimate of memory may be off."""

from __future__ import annotations

KINDS = ("alone-lora", "alone", "open", "shared", "shared-open", "split", "offloaded")

# In few words, for the cell of a table.
KIND_WORDS = {
    "alone-lora": "LoRA, one GPU", "alone": "one GPU", "open": "lengths open", "shared": "several GPUs",
    "shared-open": "lengths open", "split": "split model", "offloaded": "offloading",
}  # fmt: skip

# What a length is to an estimate (`interval.length`), after the number of tokens.
LENGTH_WORDS = {
    "typed": "if reached", "assumed": "assumed", "packed": "packed", "reached": "reached", "shorter": "never reached",
}  # fmt: skip
