"""A denoiser in half precision: what is cast, what stays, and that nothing else changes."""

import pytest
import torch
from torch import Tensor, nn

import networks
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from diffusion.half import HalfDenoiser, halved
from tests.networks.small import images, small_net, small_variant
from torch_utils.precision import DTYPES

NAMES = sorted(networks.NETWORKS)
# relative rounding errors of the raw output that the networks' contract allows
ALLOWED = {"bf16": 2e-2, "fp16": 5e-3}


def small_denoiser(name: str = "ddpmpp", *, label_dim: int = 3) -> Denoiser:
    options = small_variant(name)
    net = small_net(options.pop("name"), label_dim=label_dim, **options)
    sizes = {"img_resolution": (8, 8), "img_channels": 2, "label_dim": label_dim}
    return Denoiser(net, preconditioning.create("edm"), **sizes).eval().requires_grad_(False)


def noisy(num: int = 3) -> tuple[Tensor, Tensor]:
    return images(num).double(), torch.eye(3)[torch.arange(num) % 3]


@pytest.mark.parametrize("precision", sorted(ALLOWED))
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_autocast_computes(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = small_denoiser(name)
    x, labels = noisy()
    exact, half = denoiser(x, 0.7, labels), halved(denoiser, precision)(x, 0.7, labels)
    assert half.dtype == torch.float64
    assert half.is_contiguous()
    c_skip, _ = denoiser.preconditioning.coefficients(torch.tensor(0.7, dtype=torch.float64))
    error = float((half - exact).norm() / (exact - c_skip * x).norm())
    assert 0 < error < ALLOWED[precision]
    with torch.autocast("cpu", DTYPES[precision]):
        same = denoiser(x, 0.7, labels)
    monkeypatch.setattr("diffusion.half.memory_layout", lambda device: torch.contiguous_format)
    assert torch.equal(halved(denoiser, precision)(x, 0.7, labels), same)


def test_a_copy_leaves_the_given_denoiser_alone_and_shares_what_is_not_cast() -> None:
    denoiser = small_denoiser()
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    half = halved(denoiser, "bf16")
    ours = dict(half.named_parameters())
    for name, tensor in denoiser.state_dict().items():
        assert torch.equal(tensor, before[name])
    for name, parameter in denoiser.named_parameters():
        assert (ours[name] is parameter) == (ours[name].dtype == torch.float32), name
    assert {parameter.dtype for parameter in ours.values()} == {torch.float32, torch.bfloat16}


def test_in_place_no_weight_is_kept_twice() -> None:
    denoiser = small_denoiser()
    model = denoiser.model
    kept = halved(small_denoiser(), "bf16")
    half = halved(denoiser, "bf16", in_place=True)
    assert half.model is model
    x, labels = noisy()
    assert torch.equal(half(x, 0.7, labels), kept(x, 0.7, labels))
    assert model.enc["8x8_block0"].conv0.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_only_convolutions_of_blocks_are_cast(name: str) -> None:
    half = halved(small_denoiser(name), "bf16")
    cast = {key for key, p in half.named_parameters() if p.dtype == torch.bfloat16}
    layers = {".".join(key.split(".")[-2:-1]) for key in cast}
    assert {"conv0", "conv1", "qkv", "proj"} <= layers <= {"conv0", "conv1", "qkv", "proj", "skip"}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_laid_out_as_the_network_prefers(name: str, in_place: bool) -> None:
    denoiser = small_denoiser(name)
    x, labels = noisy()
    exact = denoiser(x, 0.7, labels)
    given = dict(denoiser.named_parameters())
    found = halved(denoiser, "fp32", in_place=in_place)
    prefers = name in ("ddpmpp", "ncsnpp")
    assert (found is denoiser) == (in_place or not prefers)
    for key, parameter in found.named_parameters():
        is_kernel = parameter.ndim == 4
        if is_kernel and prefers:
            assert parameter.is_contiguous(memory_format=torch.channels_last), key
        assert not in_place or parameter.data_ptr() == given[key].data_ptr() or is_kernel, key
        assert in_place or (parameter is given[key]) == (not is_kernel or not prefers), key
    assert in_place or all(parameter.is_contiguous() for parameter in given.values())
    same = found(x, 0.7, labels)
    assert same.is_contiguous()
    torch.testing.assert_close(same, exact, rtol=1e-5, atol=1e-5)


def test_an_outer_context_does_not_change_its_precision() -> None:
    half = halved(small_denoiser(), "bf16")
    x, labels = noisy()
    plain = half(x, 0.7, labels)
    with torch.autocast("cpu", enabled=False):
        assert torch.equal(half(x, 0.7, labels), plain)


def test_a_network_that_does_not_know_its_layers_runs_under_autocast() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor, c_noise: Tensor, *_: Tensor | None) -> Tensor:
            found: Tensor = self.conv(x)
            assert found.dtype == torch.bfloat16
            return found

    sizes = {"img_resolution": (8, 8), "img_channels": 2}
    half = halved(Denoiser(Plain(), preconditioning.create("edm"), **sizes), "bf16")
    assert isinstance(half, HalfDenoiser)
    assert half(images(2), 0.7).dtype == torch.float32
    assert {p.dtype for p in half.parameters()} == {torch.float32}


def test_levels_and_mode_are_taken_over() -> None:
    parts = preconditioning.create("iddpm")
    sizes = {"img_resolution": (8, 8), "img_channels": 2}
    denoiser = Denoiser(small_net(out_channels=4), parts, **sizes).eval()
    half = halved(denoiser, "bf16")
    assert half.u is denoiser.u
    assert half.log_levels is denoiser.log_levels
    assert not half.training
    assert half.round_sigma(0.71) == denoiser.round_sigma(0.71)
    assert half.state_dict().keys() == denoiser.state_dict().keys()
