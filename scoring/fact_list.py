"""What scores were computed from, as a list of terms for people. Nothing known is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scoring.results import Scores

# where a fact stands -> what it is called; facts that are not here follow under their own names
_TERMS = {
    "count": "images",
    "network": "network",
    "images_seen": "trained on",
    "ema": "average of weights",
    "seeds": "seeds",
    "sampler": "sampler",
    "steps": "steps",
    "calls": "network calls per image",
    "settings": "sampler settings",
    "rng_device": "random numbers drawn on",
    "detector.name": "detector",
    "detector.features": "features",
    "detector.weights_sha256": "detector's weights, sha256",
    "reference.name": "reference",
    "reference.source": "reference from",
    "reference.count": "reference's images",
    "reference.sha256": "reference, sha256",
    "reference.content_key": "reference, content of its images",
    "metrics": "metrics",
    "names": "names in files",
    "versions": "versions",
    "seconds": "time",
}
_PARTED = ("detector", "reference")
_SEPARATOR = " · "  # between what differs over seed ranges


@dataclass(frozen=True)
class Fact:
    """A term and what it is; `is_code` if people copy it rather than read it."""

    term: str
    text: str
    is_code: bool = False


def facts_of(rows: Sequence[Scores]) -> list[Fact]:
    """The facts of one subject; what differs from one seed range to the next stands in a row."""
    flat = [_flat(scores.facts) for scores in rows]
    paths = dict.fromkeys(path for facts in flat for path in facts)
    known = [path for path in _TERMS if path in paths]
    found = []
    for path in (*known, *(path for path in paths if path not in _TERMS)):
        texts = dict.fromkeys(_text(path, facts[path]) for facts in flat if path in facts)
        term = _TERMS.get(path, path.replace(".", ", ").replace("_", " "))
        found.append(Fact(term, _SEPARATOR.join(texts), path.endswith(("sha256", "content_key"))))
    return found


def split_shared(several: Sequence[Sequence[Fact]]) -> tuple[list[Fact], list[list[Fact]]]:
    """The facts that all subjects share, and of each subject the others."""
    shared = [
        fact for fact in (several[0] if several else ()) if all(fact in facts for facts in several)
    ]
    return shared, [[fact for fact in facts if fact not in shared] for facts in several]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in facts.items():
        if key in _PARTED and isinstance(value, Mapping):
            found |= {f"{key}.{part}": content for part, content in value.items()}
        else:
            found[f"{key}.name" if key in _PARTED else key] = value
    return found


def _text(path: str, value: Any) -> str:
    if path == "seconds" and isinstance(value, int | float):
        return f"{value:,.1f} s"
    if path == "images_seen" and isinstance(value, int):
        return f"{value:,} images"
    if isinstance(value, int) and not isinstance(value, bool) and path.endswith("count"):
        return f"{value:,}"
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(content)}" for key, content in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
