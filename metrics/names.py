"""What numbers may be called: a number without its detector and its count means nothing.

Only Inception's have the published names, and only at the published count: the distance of 2,000
images is `fid2k`, because fewer images give larger distances.
"""

from metrics.detectors import row

USUAL_COUNT = 50_000  # images of a published number

# metric -> its name with Inception at the usual count, its stem there, its name with another
# detector, its stem there
_NAMES = {
    "fid": ("FID", "fid", "frechet distance", "fd"),
    "is": ("IS", "is", "classifier score", "score"),
    "kid": ("KID", "kid", "kernel distance", "kd"),
    "precision": ("precision", "precision", "precision", "precision"),
    "recall": ("recall", "recall", "recall", "recall"),
}


def shown_name(value: str, detector: str, count: int) -> str:
    """The name of a number in a line for people, e.g. `FID`, `fid2k`, `frechet distance (digits)`.

    Args:
        value: fid, is, kid, precision or recall.
        detector: a key of DETECTORS.
        count: images that were scored.
    """
    published, stem, plain, _ = _NAMES[value]
    chosen = row(detector)
    if chosen.is_fid:
        return published if count == USUAL_COUNT else stem + short_count(count)
    if value == "fid" and chosen.distance:
        return chosen.distance if count == USUAL_COUNT else key_name(value, detector, count)
    return f"{plain} ({detector})"


def key_name(value: str, detector: str, count: int) -> str:
    """The name of a number in a file, e.g. `fid`, `fid2k`, `fd_digits-2k`; arguments as above."""
    _, published, _, stem = _NAMES[value]
    suffix = "" if count == USUAL_COUNT else short_count(count)
    if row(detector).is_fid:
        return published + suffix
    return f"{stem}_{detector}" + (f"-{suffix}" if suffix else "")


def short_count(count: int) -> str:
    """A count as a suffix: 2000 is `2k`, 1797 is `1797`."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)
