"""Dropout: what is dropped, what is kept, and where it is drawn from."""

import pytest
import torch
from torch import Tensor

from networks.dropout import dropout

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
NUM = 200_000


def ones(dtype: torch.dtype) -> Tensor:
    return torch.ones(NUM // 500, 4, 25, 5, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.001, 0.13, 0.5, 0.9])
def test_an_element_is_dropped_with_its_probability_and_the_mean_stays(
    dtype: torch.dtype, p: float
) -> None:
    torch.manual_seed(0)
    found = dropout(ones(dtype), p, True)
    share = float((found == 0).double().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / NUM) ** 0.5
    kept = found[found != 0].unique()
    assert len(kept) == 1
    assert float(kept) == pytest.approx(1 / (1 - p), rel=4e-3 if dtype.itemsize == 2 else 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_or_everything_is_dropped_at_the_ends(dtype: torch.dtype) -> None:
    x = ones(dtype)
    assert dropout(x, 0.0, True).equal(x)
    assert dropout(x, 0.5, False).equal(x)
    assert dropout(x, 1.0, True).equal(torch.zeros_like(x))
    torch.testing.assert_close(dropout(x, 1e-12, True), x)
    assert dropout(x, 1 - 1e-12, True).count_nonzero() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_seeds_drop_equal_elements_and_neighbours_are_independent(dtype: torch.dtype) -> None:
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append((dropout(ones(dtype), 0.5, True) != 0).flatten().double())
    assert masks[0].equal(masks[1])
    for other in (masks[2], *(masks[0].roll(by) for by in (1, 2, 3, 4, 8))):
        assert abs(float((masks[0] * other).mean()) - 0.25) < 0.005


def test_the_gradient_passes_where_elements_were_kept_in_any_layout() -> None:
    x = torch.randn(3, 5, 4, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = dropout(x, 0.4, True)
    assert found.is_contiguous(memory_format=torch.channels_last)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(found, x * x.grad)
    assert x.grad.unique().tolist() == pytest.approx([0, 1 / 0.6], rel=1e-6)
    sliced = torch.ones(4, 6)[:, ::2]
    assert dropout(sliced, 0.5, True).shape == sliced.shape
    odd = torch.ones(3, dtype=torch.bfloat16)
    assert dropout(odd, 0.5, True).shape == odd.shape
