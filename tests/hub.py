"""A small local server that stands in for the Hugging Face Hub: repositories in memory, one commit after another."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Repository:
    """Files by path, as they were after each commit."""

    def __init__(self, private: bool):
        self.private = private
        self.commits: list[tuple[str, dict[str, bytes]]] = []
        self.commit({})

    def commit(self, files: dict[str, bytes]) -> str:
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits.append((name, whole))
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        return self.commits[-1] if revision == "main" else next((c for c in self.commits if c[0] == revision), None)


class Hub(ThreadingHTTPServer):
    """``repositories`` by "models/user/name" or "datasets/user/name"; ``seen`` lists the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub():
    """The server, for as long as the block lasts."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _error(self, code: str) -> None:
        self._answer(404, b"{}", X_Error_Code=code, X_Error_Message=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self):
        parts = urlsplit(self.path)
        self.server.seen.append(f"{self.command} {self.path}")
        return unquote(parts.path), parse_qs(parts.query)

    def do_POST(self):
        path, _ = self._route()
        body = self._body()
        if path == "/api/repos/create":
            wish = json.loads(body)
            owner = wish.get("organization") or "user"
            name = f"{wish.get('type') or 'model'}s/{owner}/{wish['name']}"
            if name in self.server.repositories:
                return self._json({"error": "exists", "url": f"{self.server.url}/{owner}/{wish['name']}"}, 409)
            self.server.repositories[name] = Repository(
                bool(wish.get("private")) or wish.get("visibility") == "private"
            )
            return self._json({"url": f"{self.server.url}/{owner}/{wish['name']}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/(preupload|commit)/(.+)", path)
        repository = self.server.repositories.get(found[1]) if found else None
        if repository is None:
            return self._error("RepoNotFound")
        if found[2] == "preupload":
            files = json.loads(body)["files"]
            return self._json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        lines = [json.loads(line) for line in body.splitlines() if line]
        new = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        name, place = repository.commit(new), found[1].removeprefix("models/")
        return self._json({"commitUrl": f"{self.server.url}/{place}/commit/{name}", "commitOid": name, "success": True})

    def do_GET(self):
        path, query = self._route()
        if path == "/api/whoami-v2":
            return self._json({"name": "user", "type": "user", "orgs": []})
        if path == "/api/datasets":
            author = query.get("author", [""])[0]
            names = [
                n.removeprefix("datasets/") for n in self.server.repositories if n.startswith(f"datasets/{author}/")
            ]
            return self._json([{"id": name, "_id": name} for name in names])
        for pattern, answer in (
            (r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/api/((?:models|datasets)/[^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", self._tree),
            (r"/(datasets/[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
        ):
            if found := re.fullmatch(pattern, path):
                name = found[1] if found[1].startswith(("models/", "datasets/")) else f"models/{found[1]}"
                repository = self.server.repositories.get(name)
                if repository is None:
                    return self._error("RepoNotFound")
                state = repository.at(found[2] or "main")
                return self._error("RevisionNotFound") if state is None else answer(name, repository, state, found)
        return self._error("EntryNotFound")

    do_HEAD = do_GET

    def _info(self, name, repository, state, _):
        siblings = [{"rfilename": path} for path in state[1]]
        short = name.split("/", 1)[1]
        self._json({"id": short, "_id": short, "private": repository.private, "sha": state[0], "siblings": siblings})

    def _tree(self, _name, _repository, state, _):
        rows = [{"type": "file", "path": p, "size": len(b), "oid": _oid(b)} for p, b in state[1].items()]
        self._json(rows)

    def _file(self, _name, _repository, state, found):
        content = state[1].get(found[3])
        if content is None:
            return self._error("EntryNotFound")
        self._answer(200, content, ETag=f'"{_oid(content)}"', X_Repo_Commit=state[0])


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
