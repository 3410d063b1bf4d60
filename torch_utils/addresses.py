"""Addresses of files on the network: which are fetched, how they are shown and how they are named.

Nothing is fetched here, so that a command line can look at an address before the work.
"""

import hashlib
import ipaddress
import re
import string
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urlsplit

from torch_utils.errors import UserError

SHA256_DIGITS = 64
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PINNED = re.compile(r"sha256=([0-9A-Fa-f]{64})")
_MAX_NAME = 80  # letters of an address that become part of a file's name
_MAX_SUFFIX = 16


def is_url(text: str) -> bool:
    """Whether a text is an address rather than a path or a name: it starts with `scheme://`."""
    return _URL.match(text) is not None


def address_of(text: str) -> tuple[str, str | None]:
    """Take an address apart that a user gave: `URL` or `URL#sha256=HEX`.

    Args:
        text: the address, with or without the SHA-256 of the file that must be there.

    Returns:
        The URL without what follows the `#`, in ASCII; the SHA-256 in lower case, or None.

    Raises:
        UserError: the URL is not one that is fetched, or something else follows the `#`.
    """
    url, mark, rest = text.partition("#")
    pinned = _PINNED.fullmatch(rest)
    if mark and not pinned:
        raise UserError(
            f"{shown(text)}: after the # of an address comes sha256= and the file's SHA-256, "
            f"{SHA256_DIGITS} hexadecimal digits"
        )
    problem = refusal(url)
    if problem:
        raise UserError(f"{shown(text)}: {problem}")
    return quote(url, safe=string.punctuation), pinned[1].lower() if pinned else None


def refusal(url: str, *, may_be_local: bool = True) -> str | None:
    """Why an address is not fetched, or None if it is: https, or http of this machine itself.

    Args:
        url: the address.
        may_be_local: False for where another machine redirects to.
    """
    parts = _split(url)
    if parts is not None and parts.scheme == "file":
        return "give the path of a local file without file://"
    if parts is None or not parts.hostname:
        return "this is not an address: one looks like https://host/file"
    if not url.isprintable() or " " in url:
        return "there is a space or control character in this address: write it as %20"
    is_local = _is_this_machine(parts.hostname)
    if is_local and not may_be_local:
        return "it leads to a server on this machine"
    if parts.scheme == "https" or (parts.scheme == "http" and is_local):
        return None
    if parts.scheme == "http":
        return "what comes over http can be changed on its way: use https"
    return "only https addresses are fetched"


def is_local(url: str) -> bool:
    """Whether an address is of a server on this machine."""
    parts = _split(url)
    return parts is not None and _is_this_machine(parts.hostname or "")


def shown(url: str) -> str:
    """An address as messages show it: without a password, and without a query that may be one."""
    parts = _split(url)
    if parts is not None:
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}{'?...' if parts.query else ''}"
    scheme, mark, rest = url.partition("://")
    if "@" in rest:  # a password may be anywhere before it
        return f"{scheme}{mark}..."
    return scheme + mark + re.split(r"[?#]", rest)[0]


def file_name(url: str) -> str:
    """The name under which the file of an address is kept: its own, and a few digits of the URL's.

    Two addresses whose files have one name do not collide; the suffix stays.
    """
    parts = _split(url)
    last = PurePosixPath(unquote(parts.path if parts else ""))
    stem, suffix = _plain(last.stem)[-_MAX_NAME:], _plain(last.suffix)[:_MAX_SUFFIX]
    digits = hashlib.sha256(url.encode()).hexdigest()[:8]
    return f"{stem or 'file'}-{digits}{'.' if suffix else ''}{suffix}"


def _plain(name: str) -> str:
    """A part of a name with the letters that every file system has."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None if it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises if it is not a number)
    except ValueError:
        return None
    return parts if is_url(url) else None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
