"""The modes that every network runs in: precision, layout, compilation, checkpointing, DDP."""

import copy
import itertools
import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from networks.blocks import UNetBlock, set_remat
from networks.norms import GroupNorm
from tests.networks.small import DEVICES, conditions, images, small_net
from tests.networks.test_contract import FAMILIES, VARIANTS

WITH_BLOCKS = [variant for variant in FAMILIES if set_remat(small_net(**variant), False)]


def distance(output: Tensor, expected: Tensor) -> float:
    """Relative error, root mean square."""
    return float((output - expected).norm() / expected.norm())


def gradients(net: nn.Module, call: Any = None, seed: int = 0) -> dict[str, Tensor]:
    """Gradients of a loss of the output, name by name."""
    torch.manual_seed(seed)
    net.zero_grad()
    device = next(net.parameters()).device
    output = (net if call is None else call)(images(3).to(device), conditions(3).to(device))
    output.square().mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision_is_within_its_bound(
    variant: dict[str, Any], dtype: torch.dtype, bound: float, device: str
) -> None:
    net = small_net(**variant).to(device)
    x, c_noise = images(3).to(device), conditions(3).to(device)
    with torch.no_grad():
        expected = net(x, c_noise)
        with torch.autocast(device, dtype):
            output = net(x, c_noise)
    assert output.dtype == torch.float32
    assert 0 < distance(output, expected) < bound


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("is_half", [False, True])  # on CPUs only half precision has fused kernels
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_layout_stays_what_it_is_into_and_out_of_every_layer(
    layout: torch.memory_format, is_half: bool, variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).to(device, memory_format=layout)
    turned = []

    def check(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for value in (*inputs, output):
            is_image = isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[1:]) > 1
            if is_image and not value.is_contiguous(memory_format=layout):
                turned.append(type(module).__name__)

    for module in net.modules():
        module.register_forward_hook(check)
    x = images(3).to(device, memory_format=layout)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=is_half):
        net(x, conditions(3).to(device))
    assert not turned


def test_the_elementary_norm_is_the_native_one_and_keeps_the_layout() -> None:
    norm = GroupNorm(12)
    nn.init.normal_(norm.weight)
    x = (images(3, channels=12, width=6) * 3 + 5).to(memory_format=torch.channels_last)
    torch.testing.assert_close(norm._elementary(x), norm(x), rtol=1e-4, atol=1e-5)
    assert norm._elementary(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", FAMILIES)
def test_compiled_gradients_equal_eager_ones_without_recompiling(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).to(device).train()
    expected = gradients(net)
    torch._dynamo.reset()
    # on CPUs the traced graph alone; a small network's kernels are in test_song.py
    backend = "inductor" if device == "cuda" else "aot_eager"
    compiled = torch.compile(net, fullgraph=True, backend=backend, dynamic=False)
    found = gradients(net, compiled)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * scale, msg=name)
    with torch.compiler.set_stance("fail_on_recompile"):
        again = gradients(net, compiled)
    for name, gradient in found.items():
        assert torch.equal(again[name], gradient), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", WITH_BLOCKS)
def test_checkpointed_gradients_are_the_same_with_dropout_on(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(dropout=0.3, **variant).to(device).train()
    expected = gradients(net, seed=5)
    assert expected.keys() != gradients(net.eval()).keys() or any(
        not torch.equal(g, expected[name]) for name, g in gradients(net, seed=5).items()
    )
    net.train()
    set_remat(net, True)
    calls = []
    first = next(module for module in net.modules() if isinstance(module, UNetBlock))
    first.norm1.register_forward_hook(lambda *_: calls.append(1))
    found = gradients(net, seed=5)
    assert len(calls) == 2  # once forward, once again in the backward pass
    for name, gradient in expected.items():
        if device == "cpu":
            assert torch.equal(found[name], gradient), name
        else:  # atomic additions come in any order
            torch.testing.assert_close(found[name], gradient, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", WITH_BLOCKS)
def test_forward_derivatives_can_be_trained_on_with_checkpointing(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).to(device).train()

    def along(x: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(
            lambda at: net(at, conditions(2).to(device)), (x,), (torch.ones_like(x),)
        )[1]
        return tangent

    found = []
    for remat in (False, True):
        set_remat(net, remat)
        net.zero_grad()
        along(images(2).to(device)).square().mean().backward()
        found.append({n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None})
    assert found[0]
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", FAMILIES)
def test_second_derivatives_equal_finite_differences_of_the_first(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).double().to(device)
    x, c_noise = images(2).double().to(device).requires_grad_(), conditions(2).double().to(device)
    direction = torch.randn_like(x)

    def slope(at: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels can be differentiated once only
            loss = net(at, c_noise).square().mean()
        (gradient,) = torch.autograd.grad(loss, at, create_graph=True)
        return gradient

    (second,) = torch.autograd.grad((slope(x) * direction).sum(), x)
    h = 1e-5
    differences = (slope(x + h * direction) - slope(x - h * direction)) / (2 * h)
    scale = float(second.abs().max())
    torch.testing.assert_close(second, differences.detach(), rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", FAMILIES)
def test_a_deep_copy_is_independent(variant: dict[str, Any], device: str) -> None:
    net = small_net(**variant).to(device)
    given = images(2).to(device), conditions(2).to(device)
    with torch.no_grad():
        before = net(*given)
        other = copy.deepcopy(net)
        for parameter in other.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(net(*given), before)
        assert not torch.allclose(other(*given), before)


def test_every_network_trains_under_ddp() -> None:
    """A world of one: every parameter takes part, and gradients are those of the bare network."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    try:
        for variant in FAMILIES:
            net = small_net(**variant).train()
            expected = gradients(net)
            wrapped = nn.parallel.DistributedDataParallel(net)
            found = gradients(net, wrapped)
            for name, gradient in expected.items():
                torch.testing.assert_close(found[name], gradient, msg=name)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("variant", FAMILIES)
def test_conditions_may_be_classes_vectors_or_several_tags(variant: dict[str, Any]) -> None:
    options = {**variant, "multi_tags": True} if variant["name"] == "vdiff" else variant
    net = small_net(label_dim=4, **options)
    labels = torch.tensor([[0, 1.0, 0, 0], [0.3, -0.2, 0.9, 0.1], [1.0, 0, 1.0, 1.0]])
    outputs = []
    with torch.no_grad():
        for row in labels:
            outputs.append(net(images(1), conditions(1), row[None]))
            dropped = net(images(1), conditions(1), row[None], torch.tensor([False]))
            torch.testing.assert_close(dropped, net(images(1), conditions(1)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(outputs[a], outputs[b])


@pytest.mark.parametrize("variant", WITH_BLOCKS)
def test_no_two_gradients_share_memory(variant: dict[str, Any]) -> None:
    net = small_net(**variant).train()
    gradients(net)
    found = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(gradient.is_contiguous() for gradient in found)
    places = sorted((g.data_ptr(), g.data_ptr() + g.nbytes) for g in found)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
