"""`lora-plan web`."""

from __future__ import annotations

import ipaddress

import click

EPILOG = """\b
Examples:
  lora-plan web
  lora-plan web --port 8000 --open
"""


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command("web", epilog=EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@click.option("--open", "browser", is_flag=True, help="Open it in the browser.")
@click.option(
    "--hub", is_flag=True, help="Look names that the catalogue lacks up on the model hub: config.json alone."
)
def command(host: str, port: int, browser: bool, hub: bool) -> None:
    """The planner as a page in the browser: the same numbers, live, with figures and downloads.

    Needs the extra `web` (pip install 'lora-plan[web]'). It listens on this machine alone unless told otherwise,
    loads nothing from anywhere else, sends nothing anywhere, and reads no files but a data file that is chosen on the
    page (32 MiB at most): it is counted and not kept.
    """
    from ..web.server import run

    if not _loopback(host):
        click.echo(f"Anyone who reaches {host} can use the page.", err=True)
    run(host, port, hub=hub, browser=browser)
