"""Precision and recall against their definition, with copies, edges and blocks of any size."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from metrics.manifold import precision_recall
from tests.command import ENVIRONMENT, ROOT
from torch_utils.errors import UserError


def sample(seed: int, num: int, shift: float = 0.0, num_features: int = 5) -> np.ndarray:
    """float32 [num, num_features], normal, shifted along the first axis."""
    values = np.random.default_rng(seed).normal(size=(num, num_features)) + 100
    values[:, 0] += shift
    return values.astype(np.float32)


def share_within(queries: np.ndarray, balls: np.ndarray, k: int) -> float:
    """The definition, from differences."""
    own = np.linalg.norm(balls[:, None] - balls, axis=2)
    radii = np.sort(own, axis=1)[:, k]  # the nearest of all is the point itself
    distances = np.linalg.norm(queries[:, None] - balls, axis=2)
    return float((distances <= radii).any(1).mean())


@pytest.mark.parametrize(("num", "num_real"), [(50, 50), (37, 61), (64, 4)])
@pytest.mark.parametrize("block", [7, 32, 4096])
@pytest.mark.parametrize("k", [1, 3])
def test_it_agrees_with_the_definition(num: int, num_real: int, block: int, k: int) -> None:
    x, y = sample(0, num, 1.0), sample(1, num_real)
    found = precision_recall(x, y, k=k, block=block)
    exact = x.astype(np.float64), y.astype(np.float64)
    assert found == (share_within(*exact, k), share_within(*exact[::-1], k))
    assert 0 < found[0] < 1


def test_it_agrees_with_torch_fidelity() -> None:
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    x, y = sample(2, 300, 0.7, 16), sample(3, 400, 0, 16)
    theirs = metric_prc.prc_features_to_metric(
        torch.from_numpy(x).double(), torch.from_numpy(y).double(), verbose=False
    )
    expected = [theirs["precision"], theirs["recall"]]
    assert precision_recall(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_features_on_a_grid_have_many_copies_and_lie_on_many_edges(seed: int) -> None:
    """Whole numbers, whose distances are exact."""
    random = np.random.default_rng(seed)
    x, y = (random.integers(0, 4, (num, 4)) for num in (90, 70))
    x = x[random.integers(0, 90, 90)]
    for offset, scale in ((0, 1.0), (1000, 0.125)):
        moved = [((values + offset) * scale).astype(np.float32) for values in (x, y)]
        for k in (1, 3):
            expected = share_within(x, y, k), share_within(y, x, k)
            assert precision_recall(*moved, k=k, block=32) == expected


def test_the_sets_in_the_other_order_swap_precision_and_recall() -> None:
    x, y = sample(0, 40, 1.0), sample(1, 60)
    assert precision_recall(y, x) == precision_recall(x, y)[::-1]


def test_what_is_part_of_the_other_set_lies_in_it() -> None:
    x = sample(0, 60)
    assert precision_recall(x[:20], x)[0] == 1
    assert precision_recall(x, x[:20])[1] == 1
    beside = np.concatenate([x, x[:20] + 1000])
    assert precision_recall(beside, x) == (60 / 80, 1)


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    x = sample(0, 30)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 1000) == (0, 0)


def test_images_that_repeat_real_ones_are_precise_and_cover_little() -> None:
    real = sample(0, 200)
    copies = np.repeat(real[:4], 10, axis=0)
    precision, recall = precision_recall(copies, real)
    assert precision == 1
    assert recall == 4 / 200  # each copy has copies as neighbours: a ball of radius 0


def test_images_that_are_all_the_same_cover_themselves() -> None:
    x = np.full([6, 4], 0.3, np.float32)
    assert precision_recall(x, x[:5]) == (1, 1)
    assert precision_recall(x, x + 1) == (0, 0)


def test_a_copy_lies_in_a_ball_of_radius_zero_however_long_the_features() -> None:
    real = np.repeat(sample(0, 5, num_features=300) * 1e4, 4, axis=0)
    assert precision_recall(real[:8], real, k=3)[0] == 1
    moved = real[:8] * np.float32(1 + 1e-6)
    assert precision_recall(moved, real, k=3)[0] == 0


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="more than 3 scored images, got 3"):
        precision_recall(sample(0, 3), sample(1, 10))
    with pytest.raises(UserError, match="more than 3 reference images, got 2"):
        precision_recall(sample(0, 10), sample(1, 2))


SCRIPT = """
import resource
from pathlib import Path
import numpy as np
from metrics.manifold import precision_recall
random = np.random.default_rng(0)
x, y = (random.normal(size=(12000, 8)).astype(np.float32) for _ in range(2))
precision_recall(x[:100], y[:100])
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = mapped + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(*precision_recall(x, y))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_all_distances_are_never_in_memory_at_once() -> None:
    """Those of 12,000 images would be more than the GiB that the process may still take."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert all(0.5 < float(share) < 1 for share in done.stdout.split())
