"""The page is whole, says what is true, and takes any name."""

import base64
import io
import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from scoring.report import Subject, letter_of, report_html, write_report
from scoring.results import Scores
from torch_utils.errors import UserError
from torch_utils.images import from_picture

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "circle"}
CSS = Path(__file__).parents[2] / "scoring" / "report.css"


@dataclass
class Element:
    """A parsed element: its name, attributes, text and children."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str) -> list["Element"]:
        """The elements of a name within this one, in order."""
        found = [self] if self.tag == tag else []
        return found + [inner for child in self.children for inner in child.all(tag)]

    def words(self) -> str:
        """All text within, with single spaces."""
        return " ".join(self.text.split())

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()


class Tree(HTMLParser):
    """A parser that insists on balanced tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(page)
        self.close()
        assert len(self.open) == 1, f"never closed: {self.open[-1].tag}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def parse(page: str) -> Element:
    return Tree(page).open[0]


def scores(fid: float = 5.0, *, count: int = 2000, weights: str = "", **more: Any) -> Scores:
    """Scores with the digits detector."""
    values = {
        "fid": fid,
        "is": more.pop("is_", 8.0),
        "is_std": 0.1,
        "precision": 0.7,
        "recall": 0.5,
    }
    facts = {
        "count": count,
        "detector": {"name": "digits", "weights_sha256": weights or "ab" * 32, "features": 64},
        "reference": {"name": "ref.npz", "source": "ref.npz", "count": 1797, "sha256": "cd" * 32},
        "seconds": 1.5,
        **more,
    }
    return Scores("somewhere", values, facts)


def images(num: int = 5, shape: tuple[int, int, int] = (1, 8, 8)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, *shape), dtype=np.uint8)


def log(losses: list[float | None], **more: list[float | None]) -> list[dict[str, Any]]:
    """Rows of a stats.jsonl: a loss and other quantities, a row every 2 kimg."""
    rows = []
    for index, loss in enumerate(losses):
        means = {"Progress/kimg": 2.0 * (index + 1), "Loss/loss": loss}
        means |= {f"Score/{name}": numbers[index] for name, numbers in more.items()}
        row: dict[str, Any] = {
            name: {"num": 1, "mean": mean, "std": 0.0} for name, mean in means.items()
        }
        rows.append({**row, "timestamp": 1.0})
    return rows


def subject(name: str = "run", **more: Any) -> Subject:
    given: dict[str, Any] = {"rows": [scores()], "images": None, "stats": None, **more}
    return Subject(name, **given)


def cells(page: str) -> list[list[str]]:
    """The words of the table of scores."""
    (table,) = parse(page).all("table")
    return [
        [cell.words() for child in row.children for cell in (child.all("th") + child.all("td"))]
        for row in table.all("tr")
    ]


def shown_pixels(image: Element) -> np.ndarray:
    """What an element shows, uint8 [C, H, W]."""
    content = base64.b64decode((image.attributes["src"] or "").partition(",")[2])
    with PIL.Image.open(io.BytesIO(content)) as picture:
        return from_picture(picture)


FULL = [
    subject("a", images=images(), stats=log([3.0, 2.0], fid5k=[50.0, 20.0])),
    subject("b", rows=[scores(4.0), scores(6.0)], images=images(70, (3, 16, 24))),
    subject("c", rows=[], stats=log([3.0, None, 1.0])),
]


@pytest.mark.parametrize(
    "subjects",
    [[], FULL[:1], FULL, [subject()], [subject(rows=[], images=images(0), stats=[])]],
    ids=["none", "one", "full", "scores-only", "empty"],
)
def test_the_page_is_balanced_and_asks_for_nothing(subjects: list[Subject]) -> None:
    page = report_html(subjects, title="A title")
    assert page.startswith("<!DOCTYPE html>")
    tree = parse(page)
    assert [heading.words() for heading in tree.all("h1")] == ["A title"]
    assert not tree.all("script")
    assert not tree.all("link")
    assert not re.search(r"url\(|@import|https?://", page)
    for image in tree.all("img"):
        assert (image.attributes["src"] or "").startswith("data:image/png;base64,")
        assert "alt" in image.attributes
    for drawing in tree.all("svg"):
        assert drawing.attributes["role"] == "img"
        assert drawing.attributes["aria-label"]
    for heading in tree.all("th"):
        assert heading.attributes["scope"] in ("col", "row", "rowgroup")
    assert len(tree.all("table")) == len(tree.all("caption"))
    for path in tree.all("path"):
        assert re.fullmatch(r"[-MLHhv0-9. ]+", path.attributes["d"] or "")
    assert "nan" not in re.sub(r'src="[^"]*"', "", page).lower()


def test_the_same_subjects_give_the_same_page() -> None:
    assert report_html(FULL, title="t") == report_html(FULL, title="t")


def test_names_are_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script> \"'&amp; onerror=x \x1b[31m \u202egnp \udcff"
    shown = "<script>alert(1)</script> \"'&amp; onerror=x \\x1b[31m \\u202egnp \\udcff"
    given = scores(seeds=evil, network=evil, classes={evil: [evil]}, **{evil: evil})
    given.facts["reference"]["name"] = evil  # type: ignore[index]
    stats = [*log([1.0, 2.0]), {**log([1.0])[0], f"Score/{evil}": {"mean": 1.0}}]
    hostile = subject(evil, rows=[given, given], images=images(), stats=stats)
    page = report_html([hostile, subject()], title=evil)
    page.encode("utf-8")
    tree = parse(page)
    assert not tree.all("script")
    assert not re.search(r"\son\w+=", re.sub(r"onerror=x", "", page))
    assert [heading.words() for heading in tree.all("h1")] == [shown]
    assert shown in tree.all("table")[0].words()
    assert shown in tree.all("dl")[0].words() + tree.all("dl")[1].words()
    (grid,) = [box for box in tree.all("div") if "grid" in box.classes]
    assert grid.attributes["aria-label"] == f"5 images of {shown}"
    assert all(set(box.attributes) <= {"src", "alt", "width", "height"} for box in tree.all("img"))


def test_the_table_has_a_row_a_subject_and_marks_the_best_in_words_and_bold() -> None:
    several = [scores(5.0, is_=9.0), scores(5.0), scores(6.0)]
    page = report_html(
        [subject(s, rows=[r]) for s, r in zip("abc", several, strict=True)], title="t"
    )
    names = ["frechet distance (digits)", "classifier score (digits)"]
    head, *rows = cells(page)
    assert head[:4] == ["Scored", "Images", f"{names[0]} ↓", f"{names[1]} ↑"]
    same = ["0.7000", "0.5000"]  # precision and recall: no subject is better than another
    assert rows == [
        ["A a", "2,000", "★5.000 (best)", "★9.000 (best)", "± 0.100", *same],
        ["B b", "2,000", "★5.000 (best)", "8.000", "± 0.100", *same],
        ["C c", "2,000", "6.000", "8.000", "± 0.100", *same],
    ]
    best = [cell.words() for cell in parse(page).all("td") if "best" in cell.classes]
    assert best == ["★5.000 (best)", "★9.000 (best)", "★5.000 (best)"]
    assert ".best { font-weight: 700; }" in page


def test_one_subject_is_not_the_best_of_anything() -> None:
    assert "★" not in report_html([subject()], title="t")


def test_several_seed_ranges_have_minimum_mean_and_deviation() -> None:
    several = [scores(4.0, seeds="0-1999"), scores(7.0, seeds="2000-3999")]
    page = report_html([subject("a", rows=several), subject("b", rows=[scores(5.4)])], title="t")
    rows = {row[0]: row[1:3] for row in cells(page)[1:] if len(row) > 1}
    assert rows == {
        "seeds 0-1999": ["2,000", "4.000"],
        "seeds 2000-3999": ["2,000", "7.000"],
        "minimum": ["", "4.000"],
        "mean": ["", "5.500"],
        "standard deviation": ["", f"{3 / math.sqrt(2):.3f}"],
        "B b": ["2,000", "★5.400 (best)"],  # against the mean, not the minimum
    }
    assert cells(page)[1] == ["A a"]
    page = report_html([subject("a", rows=several), subject("b", rows=[scores(5.6)])], title="t")
    marked = {row[0]: row[2] for row in cells(page)[1:] if len(row) > 1 and "★" in row[2]}
    assert marked == {"mean": "★5.500 (best)"}
    assert "their mean is compared" in page


def test_numbers_of_other_counts_stand_in_other_columns() -> None:
    several = [subject("a", rows=[scores(5.0, count=50_000)]), subject("b", rows=[scores(9.0)])]
    several[0].rows[0].facts["detector"]["name"] = "pixels"
    head, first, second = cells(report_html(several, title="t"))
    assert head[2:4] == ["frechet distance (pixels) ↓", "frechet distance (digits) ↓"]
    assert (first[2:4], second[2:4]) == (["5.000", "–"], ["–", "9.000"])


def test_no_best_is_marked_among_numbers_that_cannot_be_compared() -> None:
    assert "cannot be compared" not in report_html([subject("a"), subject("b")], title="t")
    for other in (scores(4.0, weights="ef" * 32), scores(4.0, count=1000)):
        page = report_html([subject("a"), subject("b", rows=[other])], title="t")
        assert "★" not in page
        assert "cannot be compared" in page
    other = scores(4.0, is_=9.0)
    other.facts["reference"]["sha256"] = "01" * 32
    page = report_html([subject("a"), subject("b", rows=[other])], title="t")
    _, _, row = cells(page)
    assert row[2:4] == ["4.000", "★9.000 (best)"]  # the score has no reference


def test_numbers_that_are_not_finite_are_said_and_never_best() -> None:
    several = [scores(math.inf), scores(math.nan), scores(7.0), scores(8.0)]
    page = report_html([subject(str(i), rows=[s]) for i, s in enumerate(several)], title="t")
    assert [row[2] for row in cells(page)[1:]] == ["∞", "not a number", "★7.000 (best)", "8.000"]


def test_what_scores_were_computed_from_is_listed_and_what_is_shared_once() -> None:
    first = scores(seeds="0-9", sampler="heun", versions={"torch": "2.7"}, own_word=[1, None])
    second = scores(seeds="10-19", sampler="heun", versions={"torch": "2.7"}, own_word=[1, None])
    page = report_html([subject("a", rows=[first]), subject("b", rows=[second])], title="t")
    lists = [
        [(div.all("dt")[0].words(), div.all("dd")[0].words()) for div in found.all("div")]
        for found in parse(page).all("dl")
    ]
    assert lists == [
        [
            ("images", "2,000"),
            ("sampler", "heun"),
            ("detector", "digits"),
            ("features", "64"),
            ("detector's weights, sha256", "ab" * 32),
            ("reference", "ref.npz"),
            ("reference from", "ref.npz"),
            ("reference's images", "1,797"),
            ("reference, sha256", "cd" * 32),
            ("versions", "torch 2.7"),
            ("time", "1.5 s"),
            ("own word", "1, none"),
        ],
        [("seeds", "0-9")],
        [("seeds", "10-19")],
    ]


def test_facts_that_differ_between_ranges_stand_in_a_row() -> None:
    rows = [scores(seeds="0-9", reference=None), scores(seeds="10-19", reference=None)]
    (found,) = parse(report_html([subject(rows=rows)], title="t")).all("dl")
    assert "seeds0-9 · 10-19" in found.words()
    assert "referencenone" in found.words()


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        ((1, 8, 8), (64, 64), "8 × 8 pixels, enlarged 8 times"),
        ((3, 32, 20), (40, 64), "20 × 32 pixels, enlarged 2 times"),
        ((3, 100, 90), (90, 100), "90 × 100 pixels"),
        ((3, 256, 512), (128, 64), "512 × 256 pixels, reduced to 128 × 64"),
        ((4, 64, 64), (259, 64), "64 × 64 pixels, 4 channels side by side"),
        ((2, 16, 8), (65, 64), "8 × 16 pixels, 2 channels side by side, enlarged 4 times"),
        (
            (2, 200, 100),
            (129, 128),
            "100 × 200 pixels, 2 channels side by side, reduced to 64 × 128",
        ),
    ],
    ids=str,
)
def test_images_are_shown_as_they_are(
    shape: tuple[int, int, int], size: tuple[int, int], words: str
) -> None:
    given = images(70, shape)
    (figure,) = parse(report_html([subject(images=given)], title="t")).all("figure")
    first_of = "pixels, the first 64 of 70"
    assert words.replace("pixels", first_of) in figure.words()
    shown = figure.all("img")
    assert len(shown) == 64
    for place in (0, 63):
        attributes = shown[place].attributes
        assert (attributes["width"], attributes["height"]) == tuple(map(str, size))
        pixels = shown_pixels(shown[place])
        if "channels" in words:
            np.testing.assert_array_equal(pixels.shape, (3, *size[::-1]))
        elif "reduced" not in words:
            np.testing.assert_array_equal(pixels, given[place])
        if "channels" in words and "reduced" not in words:
            factor = size[1] // shape[1]
            last = pixels[:, ::factor, -shape[2] * factor :: factor]
            np.testing.assert_array_equal(last, given[place, [-1] * 3])
    enlarged = [box for box in figure.all("div") if "enlarged" in box.classes]
    assert len(enlarged) == ("enlarged" in words and "channels" not in words)


def test_runs_share_a_chart_and_each_says_its_numbers() -> None:
    stats = log([9.0, 8.0, 7.5], fid5k=[50.0, None, 30.0], is5k=[2.0, 4.0, 3.0])
    first = subject("a", stats=stats)
    page = report_html([first, subject("b"), subject("c", stats=log([6.0, 9.0]))], title="t")
    loss, fid, score = parse(page).all("figure")
    assert [len(found.all("g")) for found in (loss, fid, score)] == [2, 1, 1]
    assert [found.all("figcaption")[0].words() for found in (loss, fid, score)] == [
        *("Training loss", "fid5k", "is5k")
    ]
    assert [entry.words() for entry in loss.all("li")] == [
        "A a · last and lowest 7.5 at 6 kimg",
        "C c · lowest 6 at 2 kimg, last 9 at 4 kimg",
    ]
    (entry,) = fid.all("li")
    assert entry.words() == "A a · last and lowest 30 at 6 kimg"
    (entry,) = score.all("li")
    assert entry.words() == "A a · highest 4 at 4 kimg, last 3 at 6 kimg"
    assert "smaller is better" in fid.words()
    assert "larger is better" in score.words()
    letters = [text.words() for text in loss.all("text") if "letter" in text.classes]
    assert letters == ["A", "C"]
    colors = [group.classes for group in loss.all("g")]
    assert colors == [["s0"], ["s2"]]  # those of the letters
    (curve,) = [path for path in fid.all("path") if "curve" in path.classes]
    assert (curve.attributes["d"] or "").count("M") == 2  # broken where it was not finite


def test_rows_that_are_not_as_they_should_be_are_left_out() -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"Loss/loss": {"mean": 4.0}},
        {"Progress/kimg": {"mean": None}, "Loss/loss": {"mean": 4.0}},
        {"Progress/kimg": {"mean": math.nan}, "Loss/loss": {"mean": 4.0}},
        {"Progress/kimg": {"mean": 1e300}, "Loss/loss": {"mean": 4.0}},
        {"Progress/kimg": {"mean": 1.0}, "Loss/loss": 4.0},
        {"Progress/kimg": {"mean": 1.0}, "Loss/loss": {"mean": 10**400}},
        {"Progress/kimg": {"mean": 1.0}, "Loss/loss": {"mean": "4"}},
    ]
    page = report_html([subject(stats=odd + log([3.0, 2.0]))], title="t")
    (entry,) = parse(page).all("li")
    assert entry.words() == "run · last and lowest 2 at 4 kimg"
    assert not parse(report_html([subject(stats=odd)], title="t")).all("svg")


@pytest.mark.parametrize(
    ("last", "label", "tick"),
    [
        (0.6, "images seen", "600"),
        (50.0, "images seen (thousands)", "50"),
        (2e5, "images seen (millions)", "200"),
    ],
)
def test_images_seen_are_counted_in_a_fitting_unit(last: float, label: str, tick: str) -> None:
    stats = [{"Progress/kimg": {"mean": seen}, "Loss/loss": {"mean": 1.0}} for seen in (0.0, last)]
    words = [
        text.words() for text in parse(report_html([subject(stats=stats)], title="t")).all("text")
    ]
    assert label in words
    assert tick in words


def test_subjects_have_letters() -> None:
    assert [letter_of(index) for index in (0, 25, 26, 51, 52, 701, 702)] == [
        *("A", "Z", "AA", "AZ", "BA", "ZZ", "AAA")
    ]
    page = report_html([subject(f"s{i}", stats=log([1.0, 2.0])) for i in range(30)], title="t")
    dashed = [path for path in parse(page).all("path") if "dashed" in path.classes]
    assert len(dashed) == 24  # colours are used again, with another stroke


def test_a_page_of_long_runs_stays_small() -> None:
    stats = log(np.random.default_rng(0).normal(size=50_000).tolist())
    assert len(report_html([subject(stats=stats)], title="t")) < 60_000


def test_colors_can_be_read_in_both_modes() -> None:
    """WCAG 2, AA: 4.5 to 1 for everything that is text."""
    style = CSS.read_text(encoding="utf-8")
    modes = re.findall(
        r"--paper: (#\w+); --ink: (#\w+); --soft: (#\w+);.*?--tint: (#\w+);\n *(.*)", style
    )
    assert len(modes) == 3  # light, dark, print
    for paper, ink, soft, tint, colors in modes:
        for color in (ink, soft, *re.findall(r"#\w+", colors)):
            assert contrast(color, paper) >= 4.5, (color, paper)
        assert contrast(soft, tint) >= 4.5
    assert contrast(modes[0][0], modes[1][0]) > 10  # the second is dark


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, as WCAG 2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i:j], 16) / 255 for i, j in pairwise((0, 2, 4, 6))]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_report(path, [subject("ä")], title="t")
    assert path.read_text(encoding="utf-8") == report_html([subject("ä")], title="t")
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot write"):
        write_report(path.parent, [subject()], title="t")
    with pytest.raises(UserError, match="cannot write"):
        write_report(path / "page.html", [subject()], title="t")
    assert list(path.parent.iterdir()) == [path]
