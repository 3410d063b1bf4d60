"""Addresses: which are fetched, what messages show of them, and what their files are called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.addresses import address_of, file_name, is_url, refusal, shown
from torch_utils.errors import UserError

HEX = "0123456789abcdef" * 4
PIECES = st.lists(st.sampled_from(["https", "://", "a.b", "@", ":", "/", "?", "#", "sha256=", HEX]))
TEXTS = st.one_of(st.text(), PIECES.map("".join), st.text().map("https://a.b/".__add__))


@pytest.mark.parametrize(
    ("text", "url", "sha256"),
    [
        ("https://a.b/c.npz", "https://a.b/c.npz", None),
        (f"https://a.b/c.npz#sha256={HEX}", "https://a.b/c.npz", HEX),
        (f"https://a.b/c.npz?d=1#sha256={HEX.upper()}", "https://a.b/c.npz?d=1", HEX),
        ("HTTPS://a.b:8/ü%20.npz", "HTTPS://a.b:8/%C3%BC%20.npz", None),
        ("http://localhost:80/c", "http://localhost:80/c", None),
        ("http://127.0.0.1/c", "http://127.0.0.1/c", None),
        ("http://[::1]:8/c", "http://[::1]:8/c", None),
    ],
)
def test_an_address_may_carry_a_hash(text: str, url: str, sha256: str | None) -> None:
    assert address_of(text) == (url, sha256)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("http://a.b/c", "http://a.b/c: what comes over http can be changed on its way: use https"),
        ("http://127.0.0.1.a.b/c", "use https"),
        ("http://0.0.0.0/c", "use https"),
        ("ftp://a.b/c", "ftp://a.b/c: only https addresses are fetched"),
        ("s3://a/b", "s3://a/b: only https addresses are fetched"),
        ("file:///a/b", "file:///a/b: give the path of a local file without file://"),
        ("https://", "https://: this is not an address: one looks like https://host/file"),
        ("https:///c", "https:///c: this is not an address"),
        ("https://a.b:x/c", "this is not an address"),
        ("https://[::1/c", "this is not an address"),
        ("https://a.b/c d", "write it as %20"),
        ("https://a.b/c\n", "write it as %20"),
        ("https://a.b/c#sha=1", "https://a.b/c: after the # of an address comes sha256= and"),
        ("https://a.b/c#", "https://a.b/c: after the #"),
        (f"https://a.b/c#sha256={HEX}0", "64 hexadecimal digits"),
        ("https://me:secret@a.b:x/c", "https://...: this is not an address"),
        ("https://me:s#secret@a.b/c", "https://...: after the # of an address"),
        ("https://me:sec/ret@a.b/c", "https://...: this is not an address"),
    ],
)
def test_other_addresses_are_refused_in_one_line(text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        address_of(text)
    assert line in str(caught.value)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://a.b", True),
        ("s3://a/b", True),
        ("FILE:///a", True),
        ("edm:cifar10-32x32", False),
        ("C:\\a\\b", False),
        ("a/b://c", False),
        ("://a", False),
        ("", False),
    ],
)
def test_a_url_begins_with_its_scheme(text: str, is_one: bool) -> None:
    assert is_url(text) == is_one


def test_files_of_one_name_do_not_collide_and_keep_their_suffix() -> None:
    names = [file_name(f"https://a.b/{place}") for place in ("x/img64.pkl", "y/img64.pkl")]
    assert all(re.fullmatch(r"img64-[0-9a-f]{8}\.pkl", name) for name in names)
    assert names[0] != names[1]
    assert file_name("https://a.b/").startswith("file-")
    assert file_name("https://a.b/..%2F..%2Fetc%2Fpasswd").startswith("passwd-")


def outcome(text: str) -> tuple[str, str | None] | UserError:
    try:
        return address_of(text)
    except UserError as error:
        return error


@given(TEXTS)
def test_whatever_is_given_is_an_address_or_one_line(text: str) -> None:
    found = outcome(text)
    if isinstance(found, UserError):
        assert len(str(found).splitlines()) == 1
        return
    url, sha256 = found
    assert is_url(url)
    assert url.isascii()
    assert "#" not in url
    assert refusal(url) is None
    assert address_of(url) == (url, None)
    assert sha256 is None or address_of(f"{url}#sha256={sha256}") == (url, sha256)


@given(TEXTS)
def test_the_name_of_a_file_is_plain(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,110}", file_name(text))
    assert file_name(text) == file_name(text)


NAMES = st.text(st.characters(exclude_characters="/?#"))


@given(NAMES, st.text(), st.sampled_from(["", "/c", ":8/c", ":x/c", "/c@d"]), st.text())
def test_no_message_shows_a_password_or_a_query(
    user: str, password: str, rest: str, query: str
) -> None:
    secret, token = f"hidden{password}", f"token{query}"
    line = shown(f"https://{user}:{secret}@a.b{rest}?{token}")
    assert "hidden" not in line
    assert "token" not in line
