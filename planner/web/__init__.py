"""The planner as a page: what is chosen goes in, the numbers of the command line come out, live.

`state` holds the choices and writes them into links, `answer` calls the planner, `views` and `figures` make what is
shown, `downloads` what is taken away; none of these knows Gradio. `page` lays them out with it, `server` serves it.
"""

from __future__ import annotations

from typing import Any


def app(*, hub: bool = False) -> Any:
    """The page as an ASGI application, for a server of your own. Needs the extra `web`."""
    from .server import application

    return application(hub=hub)


def serve(host: str = "127.0.0.1", port: int = 7860, *, hub: bool = False) -> None:
    """Serve the page until interrupted. With `hub`, names that the catalogue lacks are looked up on the model hub.
    Needs the extra `web`."""
    from .server import run

    run(host, port, hub=hub)
