"""Calls in halves on a CPU: which are divided, and that their results are those of the halves."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.func import jvp
from torch.utils.flop_counter import FlopCounterMode

from diffusion.calls import MIN_PIXELS, Calls, HalvedDenoiser
from diffusion.denoiser import Denoiser
from tests.pretend import cases
from torch_utils.two_threads import TwoThreads

HEIGHT, WIDTH = 8, 16
ENOUGH = 2 * MIN_PIXELS // (HEIGHT * WIDTH)  # images of the smallest batch that is divided
SIGMA = 0.7


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """PyTorch computes with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return cases.model("cpu", label_dim=10)


@pytest.fixture
def sizes(denoiser: Denoiser) -> Iterator[list[int]]:
    """Rows of the calls of the denoiser."""
    found = list[int]()

    def note(module: object, given: tuple[Tensor, ...], made: object) -> None:
        found.append(len(given[0]))

    handle = denoiser.register_forward_hook(note)
    yield found
    handle.remove()


def batch(num: int) -> tuple[Tensor, Tensor]:
    """Noisy images, and labels that differ."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.eye(10)[torch.arange(num) % 10]


@pytest.mark.parametrize("num", [ENOUGH, ENOUGH + 1])
def test_halves_have_the_bits_of_calls_of_their_own(
    num: int, denoiser: Denoiser, sizes: list[int]
) -> None:
    x, labels = batch(num)
    mask = torch.arange(num) % 3 > 0
    middle = num // 2
    with torch.inference_mode(), Calls() as calls:
        found = calls.of(denoiser)(x, SIGMA, labels, mask)
        assert sorted(sizes) == [middle, num - middle]
        whole = denoiser(x, SIGMA, labels, mask)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    torch.set_num_threads(1)  # as each half was computed
    with torch.inference_mode():
        for rows in (slice(middle), slice(middle, None)):
            assert torch.equal(found[rows], denoiser(x[rows], SIGMA, labels[rows], mask[rows]))


def test_a_level_may_be_a_tensor_without_dimensions(denoiser: Denoiser, sizes: list[int]) -> None:
    x, labels = batch(ENOUGH)
    with torch.inference_mode(), Calls() as calls:
        call = calls.of(denoiser)
        found = call(x, torch.tensor(SIGMA, dtype=torch.float64), labels)
        assert torch.equal(found, call(x, SIGMA, labels))
    assert sizes == 4 * [ENOUGH // 2]


def test_what_is_small_or_cannot_be_shared_is_called_as_usual(
    denoiser: Denoiser, sizes: list[int]
) -> None:
    def called(num: int, sigma: float | Tensor = SIGMA) -> None:
        x, labels = batch(num)
        sizes.clear()
        whole = denoiser(x, sigma, labels)
        assert torch.equal(call(x, sigma, labels), whole)
        assert sizes == [num, num]

    call = HalvedDenoiser(denoiser, TwoThreads())
    with torch.inference_mode():
        called(1)
        called(ENOUGH - 1)
        called(ENOUGH, torch.linspace(0.1, 1, ENOUGH))
        with torch.autocast("cpu", torch.bfloat16):
            called(ENOUGH)
        with FlopCounterMode(display=False):
            called(ENOUGH)
        torch.set_num_threads(3)
        called(ENOUGH)
    torch.set_num_threads(2)
    called(ENOUGH)  # gradients may be wanted


def test_derivatives_go_through_one_call(denoiser: Denoiser, sizes: list[int]) -> None:
    x, labels = batch(ENOUGH)
    call = HalvedDenoiser(denoiser, TwoThreads())
    with torch.inference_mode():
        _, found = jvp(lambda state: call(state, SIGMA, labels), (x,), (torch.ones_like(x),))
        _, expected = jvp(lambda state: denoiser(state, SIGMA, labels), (x,), (torch.ones_like(x),))
    assert sizes == [ENOUGH, ENOUGH]
    assert torch.equal(found, expected)
    assert found.abs().max() > 0
