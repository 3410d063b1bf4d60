"""A number is called FID with Inception and 50,000 images, and never otherwise."""

import pytest

from metrics.detectors import DETECTORS
from metrics.names import key_name, shown_name

VALUES = ("fid", "is", "kid", "precision", "recall")


def test_numbers_of_other_counts_say_their_count() -> None:
    for detector in (name for name, row in DETECTORS.items() if row.is_fid):
        assert shown_name("fid", detector, 50_000) == "FID"
        assert key_name("fid", detector, 50_000) == "fid"
        for function in (shown_name, key_name):
            assert function("fid", detector, 2_000) == "fid2k"
            assert function("is", detector, 49_984) == "is49984"
            assert function("kid", detector, 60_000) == "kid60k"


def test_the_distance_of_dinov2_has_the_name_that_edm2_gave_it() -> None:
    assert shown_name("fid", "dinov2", 50_000) == "FD_DINOv2"
    assert shown_name("fid", "dinov2", 2_000) == key_name("fid", "dinov2", 2_000) == "fd_dinov2-2k"
    assert shown_name("precision", "dinov2", 50_000) == "precision (dinov2)"


def test_numbers_of_other_detectors_say_their_detector() -> None:
    assert shown_name("fid", "digits", 50_000) == "frechet distance (digits)"
    assert shown_name("is", "digits", 100) == "classifier score (digits)"
    assert key_name("fid", "digits", 50_000) == "fd_digits"
    assert key_name("is", "digits", 1_797) == "score_digits-1797"


@pytest.mark.parametrize("function", [shown_name, key_name])
@pytest.mark.parametrize("count", [2, 5_000, 50_000])
def test_no_two_numbers_share_a_name(function, count: int) -> None:  # type: ignore[no-untyped-def]
    names = [function(v, d, count) for v in VALUES for d in DETECTORS if not DETECTORS[d].is_fid]
    assert len(set(names)) == len(names)
