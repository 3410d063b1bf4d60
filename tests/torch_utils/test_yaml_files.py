"""YAML: what it means, what is refused, and that small texts stay small."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import ROOT
from torch_utils.errors import UserError
from torch_utils.yaml_files import MAX_BYTES, parse_yaml, read_yaml


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_our_recipes_mean_what_pyyaml_says(path: Path) -> None:
    assert read_yaml(path, "x") == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: [1, -2, 1_000, 0x1F, -0b11]", {"a": [1, -2, 1000, 31, -3]}),
        ("a: [1.5, .5, 1., 2.e+3, -.inf]", {"a": [1.5, 0.5, 1.0, 2000.0, float("-inf")]}),
        (
            "a: [~, null, true, No, on, '1', x y]",
            {"a": [None, None, True, False, True, "1", "x y"]},
        ),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("2026-01-31", "2026-01-31"),
        ("=", "="),
        ("x: &a {b: 1}\ny: {<<: *a, b: 2}\nz: *a", {"x": {"b": 1}, "y": {"b": 2}, "z": {"b": 1}}),
    ],
)
def test_plain_texts_mean_what_they_show(text: str, value: Any) -> None:
    assert parse_yaml(text, "x") == value


LAUGHS = "a0: &a0 [1]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(20)
)
MERGED = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}, *a{n}], k{n + 1}: 1}}\n" for n in range(20)
)
DEEPER = "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {a: 1}\nrun: {b: 1}", r"^f: the key 'run' is there twice \(line 2\)"),
        ("run: {a: 1, b: 2, a: 3}", "the key 'a' is there twice"),
        (LAUGHS, "stands for more than 65536 values"),
        (MERGED, "stands for more than 65536 values"),
        (DEEPER, "nests deeper than 32"),
        ("a: &a [*a]", "an alias stands for what it is part of"),
        ("a: &a {b: {c: *a}}", "an alias stands for what it is part of"),
        ("[" * 200_000, "nests deeper than 32"),
        ("- " * 100_000, "nests deeper than 32"),
        ("{? [1] : 2}", "a key is a list or mapping"),
        (f"a: {'9' * 30}", "is too large"),
        (f"a: {'9' * 5000}", "not YAML"),
        ("a: !!python/object/apply:os.system [x]", "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        ("a: !!int x", "not YAML"),
        ("--- 1\n--- 2", "single document"),
        ("a: [", "not YAML"),
        ("a: \x07", "not YAML"),
    ],
)
def test_what_is_refused_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith("f")
    assert str(caught.value).isprintable()


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match=r"^recipe a has 262145 bytes"):
        read_yaml(path, "recipe a")
