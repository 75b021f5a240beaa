"""A stand-in for the hub on loopback: listings and files out of a folder (models|datasets)/owner/name, with the
addresses and headers that huggingface_hub and datasets ask for."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    root: Path
    gated: tuple[str, ...]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, code: str | None = None) -> None:
        headers = {"Content-Type": "application/json"} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps(value).encode(), headers)

    def do_HEAD(self) -> None:
        """As GET, without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """A listing under /api, a file elsewhere."""
        address = urllib.parse.urlsplit(self.path)
        parts = urllib.parse.unquote(address.path).strip("/").split("/")
        if parts[0] == "api" and len(parts) > 3 and parts[1] in ("models", "datasets"):
            self._api(parts[1], "/".join(parts[2:4]), parts[4:], "recursive=true" in address.query.lower())
        elif parts[0] == "datasets" and "resolve" in parts:
            self._file("datasets", "/".join(parts[1:3]), "/".join(parts[5:]))
        elif "resolve" in parts:
            self._file("models", "/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._json({"error": "not found"}, 404)

    def _api(self, kind: str, name: str, rest: list[str], recursive: bool) -> None:
        home = self.root / kind / name
        if not home.is_dir():
            self._json({"error": "Repository not found"}, 404, "RepoNotFound")
            return
        files = sorted(path for path in home.rglob("*") if path.is_file())
        if rest[:1] == ["tree"]:
            folder = home.joinpath(*rest[2:])
            if not folder.is_dir():
                self._json({"error": "not found"}, 404, "EntryNotFound")
            else:
                self._json(
                    [_entry(home, path) for path in (files if recursive else sorted(folder.iterdir()))]
                )
            return
        siblings = [{"rfilename": str(path.relative_to(home))} for path in files]
        self._json(
            {"_id": "1", "id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False,
             "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
        )  # fmt: skip

    def _file(self, kind: str, name: str, path: str) -> None:
        if name in self.gated:
            self._json({"error": "restricted"}, 403, "GatedRepo")
        elif not (self.root / kind / name / path).is_file():
            missing = "EntryNotFound" if (self.root / kind / name).is_dir() else "RepoNotFound"
            self._json({"error": "not found"}, 404, missing)
        else:
            data = (self.root / kind / name / path).read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if (asked := self.headers.get("Range")) is None:
                self._send(200, data, headers)
                return
            first, _, last = asked.partition("=")[2].partition("-")
            begin, end = int(first), min(int(last or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            self._send(206, data[begin : end + 1], headers)


def _entry(home: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(home))
    if path.is_dir():
        return {"type": "directory", "oid": COMMIT, "size": 0, "path": name}
    return {"type": "file", "oid": COMMIT, "size": path.stat().st_size, "path": name}


@contextmanager
def serving(root: Path, gated: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a hub that holds what lies in a folder."""
    handler = type("_Served", (_Hub,), {"root": root, "gated": gated})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
