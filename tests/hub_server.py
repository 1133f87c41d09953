"""A Hub on the loopback interface, as far as fetching needs one; its faults can be switched on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from moshi_mlx.checkpoints.known import MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.locate import locate
from moshi_mlx.frame import MoshiError

WEIGHTS = os.urandom(200_000)
MOSHI = {"model.q4.safetensors": WEIGHTS, MOSHI_MIMI: b"codec" * 999, MOSHI_TOKENIZER: b"pieces", "README.md": b"hi"}


def silent(file: str, done: int, total: int) -> None:
    """No progress."""


def fails(source: str, says: str, **options: bool) -> None:
    """A model that cannot be had is told in one line."""
    with pytest.raises(MoshiError, match=says) as caught:
        locate(source, progress=silent, **options)
    assert "\n" not in str(caught.value)


class Hub:
    """Repositories in memory. repos: "org/repo" → name → content.

    cut: how many bytes of a body are sent before the connection breaks (one entry a request, used up). lie: names whose
    content is not what the listing promised. refuse: status given instead of every answer. redirect: large files are
    elsewhere, as on the real Hub. requests: what was asked.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.cut: list[int] = []
        self.lie: set[str] = set()
        self.refuse: int | None = None
        self.redirect = False
        self.garbage: bytes | None = None
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def commit(self, repo: str) -> str:
        return hashlib.sha1(repo.encode()).hexdigest()

    def info(self, repo: str) -> dict[str, Any]:
        """What the Hub's API says of a repository: weights by SHA-256, small files by git's hash."""
        siblings = []
        for name, content in self.repos[repo].items():
            item: dict[str, Any] = {"rfilename": name, "size": len(content)}
            item["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if name.endswith((".safetensors", ".bin")):
                item["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(item)
        return {"id": repo, "sha": self.commit(repo), "siblings": siblings}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0].strip("/")
        headers = request.headers
        self.requests.append((request.command, path, headers.get("Range"), headers.get("Authorization")))
        parts = path.split("/")
        if self.refuse:
            self.send(request, self.refuse, b"")
        elif self.garbage is not None:
            self.send(request, 200, self.garbage)
        elif parts[:2] == ["api", "models"]:
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            if repo not in self.repos:
                self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", "v1", self.commit(repo)):
                self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                self.send(request, 200, json.dumps(self.info(repo)).encode())
        else:
            if self.redirect and parts[0] != "elsewhere":
                self.send(
                    request, 302, b"", {"Location": f"http://localhost:{self.url.split(':')[-1]}/elsewhere/{path}"}
                )
                return
            parts = parts[1:] if parts[0] == "elsewhere" else parts
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            content = self.repos.get(repo, {}).get(name)
            if content is None:
                self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            if name in self.lie:
                content = bytes(len(content))
            start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            status = 206 if start else 200
            extra = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.send(request, status, content[start:], extra)

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, extra: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(extra or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        if self.cut and status in (200, 206) and len(body) > 10_000:
            body = body[: self.cut.pop(0)]
            request.close_connection = True
        if request.command == "GET":
            request.wfile.write(body)
