"""The tables of docs/sampling.md are those of the registries."""

from pathlib import Path

from samplers import GRIDS, SAMPLERS
from samplers.manual import updated

PAGE = Path(__file__).parents[2] / "docs" / "sampling.md"


def test_the_tables_of_the_page_are_up_to_date() -> None:
    """If this fails: python -m samplers.manual docs/sampling.md"""
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text
    for name in (*SAMPLERS, *GRIDS):
        assert text.count(f"\n| `{name}` | ") >= 1, name


def test_an_old_table_is_replaced_and_the_rest_is_kept() -> None:
    old = "a\n<!-- samplers -->\nold\n<!-- end -->\nb\n<!-- grids -->\nold\n<!-- end -->\nc\n"
    new = updated(old)
    assert "old" not in new
    assert new.startswith("a\n<!-- samplers -->\n| sampler | ")
    assert new.endswith(" |\n<!-- end -->\nc\n")
    assert updated(new) == new
