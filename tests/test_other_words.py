"""Options typed under the names that PEFT, trainers and other calculators give them."""

from __future__ import annotations

from typing import get_args

import click
import pytest
from click.testing import CliRunner

from planner.choices import CHOICES
from planner.cli.main import COMMANDS, cli
from planner.cli.other_words import _WORDS
from planner.errors import _ELSEWHERE, InputError, hint
from planner.search.space import Prefer
from planner.trainers import names

# Options of some commands, for which others have the other name.
BOTH = {"--device", "--train-data", "--output", "--micro-batch"}


def options() -> dict[str, click.Option]:
    """Every option of every command, by its long name."""
    found: dict[str, click.Option] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        found |= {each: p for p in command.params if isinstance(p, click.Option) for each in p.opts}
    return found


def test_every_word_leads_to_an_option_and_none_hides_one() -> None:
    ours, words = options(), [word for text in _WORDS.values() for word in text.split()]
    assert len(words) == len(set(words)) > 100
    both = {f"--{word}" for word in words} & set(ours)
    assert both == BOTH
    for name in _WORDS:
        option, _, value = name.partition(" ")
        assert option in ours, name
        if value:  # what it says can be typed
            done = CliRunner().invoke(cli, ["estimate", "-m", "gpt2", option, value])
            assert done.exit_code == 0, (name, done.output, done.exception)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("estimate --lora_r 8", "It is --rank here."),
        ("estimate --load-in-4bit", "It is --quantize nf4 here."),
        ("estimate --method qlora", "QLoRA and full fine-tuning stand side by side"),
        ("estimate --rnk 8", "Did you mean '--rank'?"),
        ("lr --max-steps 100", "It is --steps here."),
        ("estimate --max-steps 100", "Steps follow from the data"),
        ("estimate --lr 1e-4", "`lora-plan lr` says which rate"),
        ("estimate --no-packing", "It is --packing padded here."),
        ("lr --load-in-4bit", "No such option '--load-in-4bit'."),
    ],
)
def test_the_error_says_what_it_is_called_here(typed: str, said: str) -> None:
    done = CliRunner().invoke(cli, [*typed.split(), "-m", "gpt2"])
    assert done.exit_code == 2 and said in " ".join(done.output.split())


def test_values_called_otherwise_elsewhere_are_choices_here() -> None:
    layers = {"attention", "mlp", "unembedding", "all-linear"}
    preferred = get_args(Prefer)  # of a search
    known = {*names(), *layers, *preferred} | {str(each) for choices in CHOICES.values() for each in choices}
    assert set(_ELSEWHERE) <= known
    for choices in (*CHOICES.values(), tuple(names()), tuple(layers), preferred):  # one meaning a field
        words = [word for choice in choices for word in _ELSEWHERE.get(str(choice), "").split()]
        assert len(words) == len(set(words)), choices


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("estimate --quantize 4bit", "Did you mean nf4?"),
        ("estimate --sharding tp", "That is --tensor-parallel N."),
        ("estimate --attention-kernel flash_attention_2", "Did you mean flash?"),
        ("estimate --layers lm_head", "Did you mean unembedding?"),
        ("estimate --optimizer paged_adam_8bit", "Did you mean paged-adamw-8bit"),
        ("estimate --loss liger", "Did you mean chunked?"),
        (
            "plan --gpu a100 --gpus 8 --tokens 1M --batch 7",
            "found 7, expected a batch that the micro-batches",
        ),
        ("plan --gpu a100 --gpus 8 --tokens 1M --batch 7", "The nearest is 8."),
    ],
)
def test_values_of_other_programs_are_told_ours(typed: str, said: str) -> None:
    done = CliRunner().invoke(cli, [*typed.split(), "-m", "gpt2"])
    assert isinstance(done.exception, InputError) and said in str(done.exception)


def test_a_word_that_nobody_says_has_no_hint() -> None:
    assert hint("quux", CHOICES["quantize"]) == ""
