"""Serves the page: loopback by default, nothing fetched from anywhere else, and only the routes that it needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependencyError
from .answer import guarded
from .downloads import File, document, export
from .state import Choices, from_query
from .uploads import MOST_BYTES

LARGEST_BODY = 1_000_000
# Of Gradio's interface only what this page uses: no files of the server, no proxy.
UPLOAD = "/gradio_api/upload"
GRADIO = re.compile(
    r"/gradio_api/(upload|upload_progress|queue/(join|data)|heartbeat/\w+|startup-events|theme\.css|app_id|info/?|reset/?)"
)
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
# What Gradio's page says of itself to other sites, pictures there included.
_ABROAD = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>", re.DOTALL)
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """Middleware: refuses routes and bodies that the page has no use for, and keeps browsers on this server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, size = scope["path"], dict(scope["headers"]).get(b"content-length", b"0")
        if path.startswith("/gradio_api/") and not GRADIO.fullmatch(path):
            await _refuse(send, 404, b"not found")
        elif scope["method"] == "POST" and b"content-length" not in dict(scope["headers"]):
            await _refuse(send, 411, b"length required")
        elif not size.isdigit() or int(size) > (MOST_BYTES + 10_000 if path == UPLOAD else LARGEST_BODY):
            await _refuse(send, 413, b"too large")
        else:
            await self.app(scope, receive, _Headed(send))


async def _refuse(send: Send, status: int, words: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(words)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words})


class _Headed:
    """Sends a response on with the headers above, and a page without its words to other sites."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.page: list[bytes] | None = None
        self.start: dict[str, Any] = {}

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *HEADERS]
            kind = dict(message["headers"]).get(b"content-type", b"")
            encoded = b"content-encoding" in dict(message["headers"])
            if kind.startswith(b"text/html") and not encoded:
                self.page, self.start = [], message
                return
        elif self.page is not None and message["type"] == "http.response.body":
            self.page.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish()
            return
        await self.send(message)

    async def _finish(self) -> None:
        body = _ABROAD.sub(b"", b"".join(self.page or []))
        kept = [(name, value) for name, value in self.start["headers"] if name != b"content-length"]
        headers = [*kept, (b"content-length", str(len(body)).encode())]
        await self.send({**self.start, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _answered(call: Callable[[Choices], File], query: dict[str, str]) -> Any:
    """A file as a response, or the error as one sentence with status 400."""
    from starlette.responses import PlainTextResponse, Response

    file, error = guarded(lambda: call(from_query(query)))
    if file is None:
        return PlainTextResponse(f"{error}\n", status_code=400)
    disposition = f'attachment; filename="{file.name}"'
    return Response(file.content, media_type=file.media_type, headers={"content-disposition": disposition})


def _routes(app: Any, hub: bool) -> None:
    """The downloads: the same choices as in the page's link, as a file."""
    from fastapi import Request

    def take_document(name: str, request: Request) -> Any:
        return _answered(lambda chosen: document(name, chosen, hub=hub), dict(request.query_params))

    def take_export(target: str, request: Request) -> Any:
        return _answered(lambda chosen: export(target, chosen, hub=hub), dict(request.query_params))

    # FastAPI reads annotations by name from the module, where Request is not.
    take_document.__annotations__.update(name=str, request=Request)
    take_export.__annotations__.update(target=str, request=Request)
    app.add_api_route("/download/export/{target}", take_export, include_in_schema=False)
    app.add_api_route("/download/{name}", take_document, include_in_schema=False)


def application(*, hub: bool = False) -> Any:
    """The page and its downloads as an ASGI application. Raises MissingDependencyError without Gradio."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, and by its parts
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError:
        raise MissingDependencyError("the page needs Gradio: pip install 'lora-plan[web]'.") from None
    from .page import build

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _routes(outer, hub)
    letters = ["ui-sans-serif", "system-ui", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="gray", radius_size="md", spacing_size="sm", text_size="md", font=letters,
        font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    # Gradio's own parameter for styles splits selectors at every comma.
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        outer, build(hub=hub), path="/", footer_links=[], allowed_paths=[], show_error=False, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, max_file_size=MOST_BYTES, theme=theme,
        run_history=False, head=f"<style>\n{style}</style>",
    )  # fmt: skip
    outer.add_middleware(Guard)
    return outer


def run(host: str, port: int, *, hub: bool = False, browser: bool = False) -> None:
    """Serve until interrupted, and open the browser if asked. Raises InputError where the address cannot be had."""
    app = application(hub=hub)
    import socket

    import uvicorn

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            "port", f"{host}:{port}", f"an address that can be listened at ({error.strerror or error})"
        ) from None
    place, number = listener.getsockname()[:2]
    shown = f"[{place}]" if ":" in place else place
    address = f"http://{shown}:{number}/"
    sys.stderr.write(f"lora-plan is at {address}  (Ctrl+C ends it)\n")
    sys.stderr.flush()
    if browser:
        import webbrowser

        webbrowser.open(address)  # the socket listens: the browser waits until the server answers
    # A page that is open holds a connection; an interrupt does not wait for it.
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
