"""A real HTTP server on this machine that answers as a test says, and remembers what was asked."""

import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Answer = bytes | Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with the bytes of a path, or as its function does."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        """Count the request and answer it."""
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404, "\x1b[2J nothing here")
        elif isinstance(answer, bytes):
            self.head(200, {"Content-Length": len(answer)})
            self.wfile.write(answer)
        else:
            answer(self)
        self.close_connection = True

    def do_CONNECT(self) -> None:
        """As a proxy, be the other server too, if there is a certificate to be it with."""
        self.server.asked.append((self.path, dict(self.headers)))
        if self.server.tunnel is None:
            self.send_error(502)
            return
        self.head(200, {})
        self.connection = self.server.tunnel.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.handle_one_request()

    def head(self, code: int, headers: dict[str, object]) -> None:
        """Send the status and the headers."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        """Send a part of a body whose length was not announced."""
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """The server; `answers` may change while it runs.

    Attributes:
        answers: path -> what it answers.
        asked: (path, headers) of every request.
        tunnel: how it encrypts as a proxy; None if it is none.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tunnel: ssl.SSLContext | None = None
        self.scheme = "https" if certificate else "http"
        if certificate:
            self.socket = encrypting(certificate).wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """Clients of tests hang up."""

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[Server]:
    """Run a server in a thread while the block runs."""
    with Server(certificate) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


def encrypting(certificate: Path) -> ssl.SSLContext:
    """What a server with a certificate encrypts with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def own_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and example.org that nobody signed, with its key.

    Skips the test without openssl. The certificate alone is public.pem in the folder.
    """
    openssl, path = shutil.which("openssl"), folder / "own.pem"
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate")
    key, public = folder / "key.pem", folder / "public.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext"]
    command += [
        "subjectAltName=IP:127.0.0.1,DNS:example.org",
        "-keyout",
        str(key),
        "-out",
        str(public),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(key.read_bytes() + public.read_bytes())
    return path
