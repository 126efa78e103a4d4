"""A hub of models on this machine: what huggingface_hub asks for to list and to download."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LTX, T5 = "Lightricks/LTX-Video", "PixArt-alpha/PixArt-XL-2-1024-MS"
FILE = "ltxv-2b-0.9.6-dev-04-25.safetensors"
TWO_PASS_FILE = "ltxv-2b-0.9.8-distilled.safetensors"
UPSAMPLER = "ltxv-spatial-upscaler-0.9.8.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`repos`: name → folder of its files; `gated` are refused, `cut` are paths whose download breaks off."""

    repos: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    licence: str = "other"
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def downloads(self):
        """The paths that were fetched whole."""
        fetched = [line for line in self.requests if line.startswith("GET whole") and "/resolve/" in line]
        return [line.split("/resolve/")[1].split("/", 1)[1] for line in fetched]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        path = unquote(urlsplit(self.path).path)
        span = self.headers.get("Range")
        self.server.hub.requests.append(f"{self.command} {'part' if span else 'whole'} {path}")
        if path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"), body)
        elif "/resolve/" in path:
            repo, _, rest = path.strip("/").partition("/resolve/")
            self._file(repo, *rest.split("/", 1), span, body)
        else:
            self._refuse(404, "EntryNotFound", body)

    def _refuse(self, status, code, body):
        text = json.dumps({"error": code}).encode()
        self._send(status, text, body, {"X-Error-Code": code, "X-Error-Message": code})

    def _known(self, repo, revision, body):
        if repo in self.server.hub.gated:
            self._refuse(403, "GatedRepo", body)
        elif repo not in self.server.hub.repos:
            self._refuse(401 if repo.startswith("private/") else 404, "RepoNotFound", body)
        elif revision not in ("main", "v1", COMMIT):
            self._refuse(404, "RevisionNotFound", body)
        else:
            return self.server.hub.repos[repo]
        return None

    def listed(self, root):
        """The names that a listing has."""
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def _listing(self, rest, body):
        repo, _, revision = rest.partition("/revision/")
        root = self._known(repo, revision or "main", body)
        if root is None:
            return
        sizes = {n: (root / n).stat().st_size if (root / n).exists() else 1 for n in self.listed(root)}
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        data = {
            "id": repo,
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
            "gated": False,
        }
        data["cardData"] = {"license": self.server.hub.licence}
        self._send(200, json.dumps(data).encode(), body, {"Content-Type": "application/json"})

    def _file(self, repo, revision, name, span, body):
        root = self._known(repo, revision, body)
        if root is None:
            return
        file = root / name
        if not file.is_file():
            self._refuse(404, "EntryNotFound", body)
            return
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        headers["Accept-Ranges"] = "bytes"
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            end = min(int(last or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
            self._send(206, content[int(first) : end + 1], body, headers)
        elif body and name in self.server.hub.cut:
            self._send(200, content, body, headers, cut=len(content) // 2)
        else:
            self._send(200, content, body, headers)

    def _send(self, status, content, body, headers, cut=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serving(hub):
    """Serve `hub`, whose `address` is set, while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.hub = True, hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
