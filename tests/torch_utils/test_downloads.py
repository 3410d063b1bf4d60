"""Files from the network: whole, the expected ones, fetched once, and never waited for in vain."""

import hashlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import ENVIRONMENT
from tests.machines.conditions import file_limit, unprivileged
from tests.server import Answer, Handler, Server, encrypting, own_certificate, serving
from torch_utils import downloads
from torch_utils.addresses import refusal
from torch_utils.downloads import fetch
from torch_utils.errors import UserError
from torch_utils.progress import silenced

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"something else"
NAME = "file.bin"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSE", 0.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.answers["/file"] = CONTENT
        running.answers["/other"] = OTHER
        yield running


def get(folder: Path, *addresses: str, sha256: str | None = None, **options: Any) -> Path:
    return fetch(addresses, NAME, folder, sha256=sha256, **{"limit": 10**6} | options)


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder, half-written files as well, but not the lock."""
    names = {path.name for path in folder.glob("*")} - {".file.lock"}
    return {name: (folder / name).read_bytes() for name in names}


def refused(folder: Path, *addresses: str, **options: Any) -> str:
    """The one line with which a file is refused; nothing of it stays."""
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        get(folder, *addresses, **options)
    assert contents(folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- once, and the right one


@pytest.mark.parametrize("sha256", [SHA256, SHA256.upper(), None])
def test_a_file_is_fetched_once_with_its_hash_beside_it(
    tmp_path: Path, server: Server, sha256: str | None
) -> None:
    folder = tmp_path / "new" / "cache"
    for _ in range(3):
        path = get(folder, server.url("/file"), sha256=sha256, size=len(CONTENT))
        assert path == folder / NAME
        assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert contents(folder).keys() == {NAME, f"{NAME}.sha256"}
    assert (folder / f"{NAME}.sha256").read_text() == f"{SHA256}  {NAME}\n"


def test_a_file_that_came_by_hand_is_checked_too(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAME).write_bytes(OTHER)
    line = refused(tmp_path, server.url("/file"), sha256=SHA256)
    assert line.startswith(f"{tmp_path / NAME} has the SHA-256 {hashlib.sha256(OTHER).hexdigest()}")
    assert f"expected {SHA256}" in line
    assert "delete it to have it fetched again" in line
    assert "10,240" in refused(tmp_path, server.url("/file"), size=len(CONTENT))
    assert get(tmp_path, server.url("/file")).read_bytes() == OTHER  # by no known hash
    (tmp_path / NAME).write_bytes(CONTENT)
    assert "it has changed" in refused(tmp_path, server.url("/file"))
    assert get(tmp_path, server.url("/file"), sha256=SHA256).read_bytes() == CONTENT
    assert not server.asked


def test_the_first_hash_is_kept_and_checked_ever_after(tmp_path: Path, server: Server) -> None:
    url, beside = server.url("/file"), tmp_path / f"{NAME}.sha256"
    path = get(tmp_path, url)
    path.write_bytes(CONTENT[:-1])
    line = refused(tmp_path, url)
    assert f"had {SHA256} at first: it has changed; delete it to have it fetched again" in line
    server.answers["/file"] = OTHER
    path.unlink()
    line = refused(tmp_path, url)  # there is another file at the address
    assert f"had {SHA256} at first; to take it as it is, delete {beside}" in line
    beside.write_text("no hash")
    assert "does not begin with a SHA-256: delete it" in refused(tmp_path, url)
    beside.unlink()
    assert get(tmp_path, url).read_bytes() == OTHER


def test_of_several_addresses_the_first_good_one_is_taken(tmp_path: Path, server: Server) -> None:
    bad = [server.url("/missing"), server.url("/other"), "http://127.0.0.1:1/closed"]
    path = get(tmp_path, *bad, server.url("/file"), sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked] == ["/missing", "/other", "/file"]


def test_the_line_names_addresses_reasons_and_the_place(tmp_path: Path, server: Server) -> None:
    missing, other = server.url("/missing"), server.url("/other")
    hint = ", or give it by --weights=FILE"
    assert refused(tmp_path, missing, other, sha256=SHA256, place_hint=hint) == (
        f"cannot fetch {NAME} from {missing} (HTTP 404 Not Found) or {other} (it has the SHA-256 "
        f"{hashlib.sha256(OTHER).hexdigest()}, expected {SHA256}): connect to the network, or put "
        f"the file at {tmp_path / NAME}, or give it by --weights=FILE"
    )


# --- what servers do


def chunked(headers: dict[str, object], *parts: bytes, is_ended: bool = True) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, {"Transfer-Encoding": "chunked"} | headers)
        for part in parts:
            handler.chunk(part)
        if is_ended:
            handler.chunk(b"")

    return answer


def plain(headers: dict[str, object], content: bytes, code: int = 200) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(code, headers)
        handler.wfile.write(content)

    return answer


BIG = bytes(10**5)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BIG, "it has 100,000 bytes, more than 10,240"),
        (chunked({}, BIG), "it has more than 10,240 bytes"),
        (chunked({"Content-Length": 10}, BIG), "it has more than 10,240 bytes"),
        (plain({"Content-Length": -5}, BIG), "it has more than 10,240 bytes"),
        (plain({}, BIG), "it has more than 10,240 bytes"),
        (plain({"Content-Length": 10_240}, BIG), "it has the SHA-256"),
        (plain({"Content-Length": 10_240}, CONTENT[1:]), "it ended after 10,239 of 10,240 bytes"),
        (chunked({}, CONTENT, is_ended=False), "the connection ended early"),
        (chunked({}, CONTENT[1:]), "it has 10,239 bytes, expected 10,240"),
        (plain({"Content-Length": 0}, b""), "it is empty"),
        (plain({"Content-Length": 4, "Content-Encoding": "gzip"}, b"abcd"), "encoded as gzip"),
        (plain({"Content-Type": "text/html; charset=x"}, b"<html>"), "a web page came instead of"),
        (plain({"Content-Length": 0}, b"", code=204), "HTTP 204 No Content"),
        (plain({"Content-Length": 0}, b"", code=503), "HTTP 503 Service Unavailable"),
        (plain({"Content-Length": 0}, b"", code=799), "HTTP 799"),
        (lambda handler: None, "Remote end closed connection without response"),
        (lambda handler: handler.wfile.write(b"220 mail\r\n") and None, "the answer is not HTTP"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value) if isinstance(value, str) else "",
)
def test_a_bad_answer_is_refused_and_nothing_stays(
    answer: Answer, reason: str, tmp_path: Path, server: Server
) -> None:
    server.answers["/bad"] = answer
    options = {"sha256": SHA256, "size": len(CONTENT)}
    assert reason in refused(tmp_path, server.url("/bad"), **options)
    assert contents(tmp_path) == {}
    path = get(tmp_path, server.url("/bad"), server.url("/file"), **options)
    assert path.read_bytes() == CONTENT


def test_without_a_known_size_the_limit_holds(tmp_path: Path, server: Server) -> None:
    server.answers["/endless"] = chunked({}, *[BIG] * 100)
    assert "more than 2,000,000 bytes" in refused(tmp_path, server.url("/endless"), limit=2 * 10**6)
    assert get(tmp_path, server.url("/file"), limit=len(CONTENT)).read_bytes() == CONTENT


def test_a_broken_connection_is_tried_again(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(handler: Handler) -> None:
        handler.head(200, {"Content-Length": len(CONTENT)})
        is_last = len(handler.server.asked) == 3
        handler.wfile.write(CONTENT if is_last else CONTENT[:5000])

    server.answers["/shaky"] = answer
    assert get(tmp_path, server.url("/shaky")).read_bytes() == CONTENT
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{NAME}: it ended after 5,000 of 10,240 bytes: trying again"] * 2


def trickle(handler: Handler) -> None:
    handler.head(200, {"Content-Length": 1000})
    for _ in range(50):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def never(handler: Handler) -> None:
    time.sleep(20)


def half(handler: Handler) -> None:
    handler.head(200, {"Content-Length": 1000})
    handler.wfile.write(b"x" * 500)
    time.sleep(20)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (never, "no answer within 0.2 s"),
        (half, "no answer within 0.2 s"),
        (trickle, r"only \d+ bytes came in 0 s|no answer"),  # if the machine is busy
    ],
    ids=["never", "half", "trickle"],
)
def test_a_server_that_hangs_is_left(
    answer: Answer, reason: str, tmp_path: Path, server: Server
) -> None:
    server.answers["/slow"] = answer
    start = time.monotonic()
    assert re.search(reason, refused(tmp_path, server.url("/slow"), timeout=0.2))
    assert time.monotonic() - start < 10


# --- where addresses lead


def to(place: str) -> Answer:
    return plain({"Location": place, "Content-Length": 0}, b"", code=302)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("http://example.org/file?key=secret", "http://example.org/file?...: what comes over http"),
        ("ftp://example.org/file", "ftp://example.org/file: only https addresses are fetched"),
        ("file:///etc/passwd", "it redirects in a circle or to nowhere"),
        ("/circle", "it redirects in a circle or to nowhere"),
        ("https://", "this is not an address"),
    ],
)
def test_redirects_are_followed_to_good_addresses_only(
    place: str, reason: str, tmp_path: Path, server: Server
) -> None:
    server.answers |= {"/circle": to(place), "/start": to("/next"), "/next": to("/file")}
    assert get(tmp_path / "good", server.url("/start")).read_bytes() == CONTENT
    line = refused(tmp_path / "bad", server.url("/circle"))
    assert reason in line
    assert "secret" not in line


def test_a_password_goes_to_its_own_server_and_into_no_message(
    tmp_path: Path, server: Server
) -> None:
    with serving() as second:
        second.answers["/file"] = CONTENT
        server.answers["/file?key=hidden"] = to(second.url("/file"))
        url = server.url("/file?key=hidden").replace("http://", "http://me:se%20cret@")
        assert get(tmp_path, url).read_bytes() == CONTENT
        assert server.asked[0][1]["Authorization"] == "Basic bWU6c2UgY3JldA=="  # me:se cret
        assert "Authorization" not in second.asked[0][1]
    line = refused(tmp_path / "b", url.replace("file", "missing"))
    assert server.url("/missing?...") in line
    for secret in ("me:", "cret", "hidden"):
        assert secret not in line


def test_another_machine_cannot_lead_to_this_one() -> None:
    for url in ("http://127.0.0.1/x", "https://localhost/x", "http://[::1]:80/x"):
        assert refusal(url) is None
        assert refusal(url, may_be_local=False) == "it leads to a server on this machine"


def test_the_certificate_of_a_server_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = own_certificate(tmp_path)
    with serving(certificate) as server:
        server.answers["/file"] = CONTENT
        line = refused(tmp_path / "cache", server.url("/file"))
        assert "certificate verify failed" in line
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
        assert get(tmp_path / "cache", server.url("/file")).read_bytes() == CONTENT


def test_a_server_behind_a_proxy_cannot_lead_to_this_machine(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tunnel = encrypting(own_certificate(tmp_path))
    server.answers |= {"/local": to(server.url("/file")), "/on": to("https://example.org/file")}
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
    monkeypatch.setenv("https_proxy", server.url(""))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    line = refused(tmp_path / "bad", "https://example.org/local")
    assert f"it redirects to {server.url('/file')}: it leads to a server on this machine" in line
    assert get(tmp_path / "good", "https://example.org/on").read_bytes() == CONTENT
    paths = [path for path, _ in server.asked if path[0] == "/"]
    assert paths == ["/local", "/on", "/file"]


def test_the_proxy_of_the_environment_is_used_but_not_for_this_machine(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.url(""))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "502 Bad Gateway" in refused(tmp_path, "https://example.org/file")
    assert [path for path, _ in server.asked] == ["example.org:443"]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert get(tmp_path, server.url("/file")).read_bytes() == CONTENT


# --- other processes, other disks

FETCH = """
import sys
from pathlib import Path
from torch_utils.downloads import fetch
path = fetch([sys.argv[1]], "file.bin", Path(sys.argv[2]), sha256=None, limit=10**6)
print(len(path.read_bytes()))
"""


def fetching(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def test_several_processes_fetch_once(tmp_path: Path, server: Server) -> None:
    def answer(handler: Handler) -> None:
        handler.head(200, {"Content-Length": len(CONTENT)})
        handler.wfile.write(CONTENT[:5000])
        time.sleep(1.0)  # the other process comes meanwhile
        handler.wfile.write(CONTENT[5000:])

    server.answers["/slow"] = answer
    both = [fetching(server.url("/slow"), tmp_path) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["10240\n"] * 2
    assert len(server.asked) == 1


def test_what_a_killed_process_left_is_neither_used_nor_kept(
    tmp_path: Path, server: Server
) -> None:
    server.answers["/half"] = half
    process = fetching(server.url("/half"), tmp_path)
    try:
        for _ in range(600):
            if list(tmp_path.glob(".file.tmp-*")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.glob(".file.tmp-*"))
    assert contents(tmp_path).keys().isdisjoint({NAME, f"{NAME}.sha256"})
    assert get(tmp_path, server.url("/file")).read_bytes() == CONTENT
    assert contents(tmp_path).keys() == {NAME, f"{NAME}.sha256"}


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["known", "unknown"])
def test_a_folder_for_reading_only_serves_what_it_has(
    open_folder: Path, server: Server, sha256: str | None
) -> None:
    (open_folder / NAME).write_bytes(CONTENT)
    open_folder.chmod(0o555)
    with unprivileged():
        assert get(open_folder, server.url("/file"), sha256=sha256).read_bytes() == CONTENT
        assert not (open_folder / f"{NAME}.sha256").exists()
        with pytest.raises(UserError, match=r"cannot keep new in .*: make room or give permission"):
            fetch([server.url("/file")], "new", open_folder, sha256=sha256, limit=10**6)
    assert not server.asked


def test_a_folder_that_cannot_be_used_is_one_line(
    open_folder: Path, tmp_path: Path, server: Server
) -> None:
    open_folder.chmod(0o000)
    line = rf"cannot keep {NAME} in {open_folder} \(Permission denied\): .* DRIFTLESS_CACHE$"
    with unprivileged(), pytest.raises(UserError, match=line):
        get(open_folder, server.url("/file"))
    open_folder.chmod(0o777)
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"\((File exists|Not a directory)\)"):
        get(tmp_path / "taken", server.url("/file"))
    assert not server.asked


def test_a_full_disk_is_one_line(tmp_path: Path, server: Server) -> None:
    with file_limit(4096):
        line = refused(tmp_path, server.url("/file"))
    assert line.startswith(f"cannot keep {NAME} in {tmp_path} (File too large): make room")


def test_progress_is_shown_unless_it_is_silenced(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(downloads, "ByteProgress", _eager)
    get(tmp_path / "a", server.url("/file"))
    assert re.search(rf"^{NAME}: 0\.0 of 0\.0 MB, [\d.]+ MB/s$", capfd.readouterr().err, re.M)
    with silenced():
        get(tmp_path / "b", server.url("/file"))
    assert capfd.readouterr().err == ""


def _eager(total: int | None, what: str) -> Any:
    from torch_utils.progress import ByteProgress

    return ByteProgress(total, what, interval=0)
