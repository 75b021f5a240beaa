"""`lora-plan completion`."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell; models, datasets and layer sets complete too.

    \b
    bash  lora-plan completion bash >> ~/.bashrc
    zsh   lora-plan completion zsh >> ~/.zshrc
    fish  lora-plan completion fish > ~/.config/fish/completions/lora-plan.fish
    """
    from click.shell_completion import get_completion_class

    from .main import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"No completion for {shell}.")
    click.echo(found(cli, {}, "lora-plan", "_LORA_PLAN_COMPLETE").source())
