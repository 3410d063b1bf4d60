"""Names from outside cannot steer a terminal."""

import pytest

from torch_utils.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Übung/食べ物\u3000é.png", "Übung/食べ物\u3000é.png"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("a\x1b[31mb\r\n\x07", r"a\x1b[31mb\r\n\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("x\u2028y\x85", r"x\u2028y\x85"),
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), r"caf\udce9.png"),
    ],
)
def test_what_cannot_be_shown_is_escaped_and_nothing_else(text, shown):
    assert printable(text) == shown
    shown.encode("utf-8")
    assert len(printable(text).splitlines()) == 1
