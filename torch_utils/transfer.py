"""One request for one file: https only, redirects checked, and never without an end.

What goes wrong is a `Failed` that says why in a few words, without the address.
"""

import base64
import contextlib
import http.client
import socket
import time
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from torch_utils.addresses import is_local, refusal, shown
from torch_utils.text import printable

TIMEOUT = 30.0  # seconds without an answer, or with hardly any bytes
_LEAST_RATE = 1000.0  # bytes per second after that time
_CHUNK = 2**20  # bytes at once
_MAX_TEXT = 200  # letters of a system's message
_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # that urllib raises
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class Failed(Exception):
    """An address did not give the file: why, and whether it may do so soon."""

    def __init__(self, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing


@contextlib.contextmanager
def opened(url: str, timeout: float) -> Iterator[http.client.HTTPResponse]:
    """The answer of a server whose body is the file.

    Args:
        url: the address, as `address_of` gives it.
        timeout: seconds to wait for the connection, and for each answer.

    Raises:
        Failed: there is no such answer.
    """
    problem = refusal(url)
    if problem:
        raise Failed(problem)
    try:
        response = _opener(url).open(_request(url), timeout=timeout)
    except HTTPError as error:
        error.close()
        raise Failed(_status(error.code), is_passing=_is_passing(error.code)) from None
    except _NETWORK_ERRORS as error:
        is_passing = isinstance(error, ConnectionResetError)  # hung up without an answer, too
        raise Failed(_reason(error, timeout), is_passing=is_passing) from None
    with response:
        problem = _wrong_kind(response, url)
        if problem:
            raise Failed(problem)
        yield response


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What follows redirects and the proxies of the environment, except on this machine itself."""
    direct = [urllib.request.ProxyHandler({})] if is_local(url) else []
    return urllib.request.build_opener(_Redirects(), *direct)


def _request(url: str) -> urllib.request.Request:
    """The request for a URL; a name and password in it are for its own server only."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(
        parts._replace(netloc=place).geturl(),
        headers={"User-Agent": "driftless", "Accept-Encoding": "identity"},
    )
    if at:
        secret = base64.b64encode(unquote(user).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that would be fetched themselves."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        problem = refusal(newurl, may_be_local=is_local(req.full_url))
        if problem:
            fp.close()
            raise Failed(f"it redirects to {shown(newurl)}: {problem}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def chunks(response: http.client.HTTPResponse, most: int, timeout: float) -> Iterator[bytes]:
    """The bytes of an answer: all that were announced, and never more than `most`.

    Raises:
        Failed: there are more, the connection ends early, or it hardly moves for `timeout` seconds.
    """
    announced: int | None = response.length
    if announced is not None and announced > most:
        raise Failed(f"it has {announced:,} bytes, more than {most:,}")
    start, done = time.monotonic(), 0
    while announced is None or done < announced:
        left = _CHUNK if announced is None else announced - done
        try:
            chunk = response.read1(min(_CHUNK, left))
        except _NETWORK_ERRORS as error:
            raise Failed(_reason(error, timeout), is_passing=True) from None
        if not chunk:
            break
        done += len(chunk)
        if done > most:
            raise Failed(f"it has more than {most:,} bytes")
        spent = time.monotonic() - start
        if spent > timeout and done < spent * _LEAST_RATE:
            raise Failed(f"only {done:,} bytes came in {spent:.0f} s", is_passing=True)
        yield chunk
    if announced is not None and done < announced:
        raise Failed(f"it ended after {done:,} of {announced:,} bytes", is_passing=True)
    if not done:
        raise Failed("it is empty")


def _wrong_kind(response: http.client.HTTPResponse, url: str) -> str | None:
    """Why the body of an answer is not the file, e.g. because a network shows its login page."""
    if response.status != HTTPStatus.OK:
        return _status(response.status)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return f"it came encoded as {encoding}"
    is_page = response.headers.get_content_type() == "text/html"
    if is_page and not urlsplit(url).path.endswith((".html", ".htm")):
        return "a web page came instead of a file"
    return None


def _status(code: int) -> str:
    """An HTTP status in words; servers may write their own, which are not shown."""
    if 300 <= code < 400:
        return "it redirects in a circle or to nowhere"
    with contextlib.suppress(ValueError):
        return f"HTTP {code} {HTTPStatus(code).phrase}"
    return f"HTTP {code}"


def _is_passing(code: int) -> bool:
    return code >= 500 or code in _BUSY


def _reason(error: Exception, timeout: float) -> str:
    """Why a connection failed, without the address, which may hold a secret."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection ended early"
    if isinstance(cause, socket.gaierror):
        return "the name of the server is not known"
    if isinstance(cause, OSError):  # also a server that hangs up
        return cause.strerror or printable(cause)[:_MAX_TEXT]
    if isinstance(cause, http.client.HTTPException):
        return "the answer is not HTTP"
    return "no connection can be made"
