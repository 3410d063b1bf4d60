"""What every network promises: labels, shapes, derivatives, precision, compilation."""

from typing import Any

import pytest
import torch

from networks import NETWORKS
from tests.networks.small import (
    DEVICES,
    conditions,
    has_augmentation,
    images,
    small_net,
    small_variant,
)
from torch_utils.errors import UserError

# every row of the registry, and more settings of some that change what is promised
FAMILIES: list[dict[str, Any]] = [small_variant(name) for name in NETWORKS]
VARIANTS: list[dict[str, Any]] = [
    *FAMILIES,
    {"name": "ddpmpp", "encoder_type": "skip", "decoder_type": "skip"},
    {"name": "ncsnpp", "encoder_type": "skip", "decoder_type": "skip"},
    {"name": "ddpm", "model_channels": 32, "resampler": "pool", "down_padding": "both"},
    {"name": "ddpm", "model_channels": 32, "resampler": "block", "modulation": "scale_shift"},
]
AUGMENTED = [variant for variant in VARIANTS if has_augmentation(variant["name"])]
DROPPING = [variant for variant in FAMILIES if "dropout" in NETWORKS[variant["name"]].options]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("resolution", [(8, 12), (12, 8)])
def test_height_and_width_may_differ(variant: dict[str, Any], resolution: tuple[int, int]) -> None:
    net = small_net(resolution=resolution, out_channels=5, **variant)
    height, width = resolution
    with torch.no_grad():
        output = net(images(3, height=height, width=width), conditions(3))
    assert output.shape == (3, 5, height, width)


@pytest.mark.parametrize("variant", FAMILIES)
def test_masked_label_is_no_label(variant: dict[str, Any]) -> None:
    net = small_net(label_dim=4, **variant)
    x, c_noise, labels = images(3), conditions(3), torch.eye(4)[:3]
    mask = torch.tensor([True, False, True])
    with torch.no_grad():
        given, none = net(x, c_noise, labels), net(x, c_noise)
        masked = net(x, c_noise, labels, mask)
    torch.testing.assert_close(masked[1], none[1])
    torch.testing.assert_close(masked[0::2], given[0::2])
    assert not torch.allclose(given[1], none[1])


@pytest.mark.parametrize("variant", AUGMENTED)
def test_augmentation_labels_matter_and_may_be_left_out(variant: dict[str, Any]) -> None:
    net = small_net(augment_dim=3, **variant)
    x, c_noise = images(2), conditions(2)
    with torch.no_grad():
        none = net(x, c_noise)
        zeros = net(x, c_noise, augment_labels=torch.zeros(2, 3))
        ones = net(x, c_noise, augment_labels=torch.ones(2, 3))
    torch.testing.assert_close(zeros, none)
    assert not torch.allclose(ones, none)


@pytest.mark.parametrize("variant", FAMILIES)
def test_one_noise_condition_serves_the_whole_batch(variant: dict[str, Any]) -> None:
    net = small_net(**variant)
    with torch.no_grad():
        one = net(images(3), torch.tensor([0.3]))
        torch.testing.assert_close(one, net(images(3), torch.full([3], 0.3)))


@pytest.mark.parametrize("variant", FAMILIES)
def test_wrong_sizes_are_one_clear_line(variant: dict[str, Any]) -> None:
    net = small_net(label_dim=4, **variant)
    with pytest.raises(UserError, match="network is for"):
        net(images(1, height=16), conditions(1))
    with pytest.raises(UserError, match="class labels have 3 columns"):
        net(images(1), conditions(1), torch.zeros(1, 3))
    with pytest.raises(UserError, match="augmentation labels have 3 columns"):
        net(images(1), conditions(1), augment_labels=torch.zeros(1, 3))
    with pytest.raises(UserError, match="one-hots for classes"):
        net(images(4), conditions(4), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(UserError, match="2 rows of class labels for 3 images"):
        net(images(3), conditions(3), torch.zeros(2, 4))
    for mask in (torch.ones(3), torch.ones(2, dtype=torch.bool), torch.ones(3, 1) > 0):
        with pytest.raises(UserError, match="give 3 booleans"):
            net(images(3), conditions(3), torch.zeros(3, 4), mask)


@pytest.mark.parametrize("variant", DROPPING)
def test_dropout_acts_in_training_mode_only(variant: dict[str, Any]) -> None:
    net = small_net(dropout=0.5, **variant)
    x, c_noise = images(2), conditions(2)
    with torch.no_grad():
        assert torch.equal(net(x, c_noise), net(x, c_noise))
        net.train()
        assert not torch.allclose(net(x, c_noise), net(x, c_noise))


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_last_gives_the_same_output(variant: dict[str, Any]) -> None:
    net, x = small_net(**variant), images(3)
    with torch.no_grad():
        expected = net(x, conditions(3))
        net.to(memory_format=torch.channels_last)
        output = net(x.to(memory_format=torch.channels_last), conditions(3))
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("wrt", ["both", "x", "c_noise"])
def test_forward_derivative_equals_finite_differences(
    variant: dict[str, Any], wrt: str, device: str
) -> None:
    net = small_net(**variant).double().to(device)
    x, c_noise = images(2).double().to(device), conditions(2).double().to(device)
    dx = x.flip(0) * (wrt != "c_noise")
    dc = torch.tensor([0.3, -0.2], dtype=torch.float64, device=device) * (wrt != "x")

    def along(h: float | torch.Tensor) -> Any:
        return net(
            x + h * dx if wrt != "c_noise" else x, c_noise + h * dc if wrt != "x" else c_noise
        )

    zero = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        value, tangent = torch.func.jvp(along, (zero,), (torch.ones_like(zero),))[:2]
        differences = (along(1e-6) - along(-1e-6)) / 2e-6
        torch.testing.assert_close(value, along(0.0))
    scale = float(tangent.abs().max())
    torch.testing.assert_close(tangent, differences, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant: dict[str, Any]) -> None:
    width = 3 if has_augmentation(variant["name"]) else 0
    net = small_net(label_dim=4, augment_dim=width, **variant)
    augment_labels = torch.ones(2, width) if width else None
    output = net(images(2), conditions(2), torch.eye(4)[:2], augment_labels=augment_labels)
    output.square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_autocast_is_close_to_float32(variant: dict[str, Any]) -> None:
    net, x = small_net(**variant), images(3)
    with torch.no_grad():
        expected = net(x, conditions(3))
        with torch.autocast("cpu", torch.bfloat16):
            output = net(x, conditions(3))
    assert output.dtype == torch.float32
    assert float((output - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("variant", FAMILIES)
def test_norms_embeddings_and_output_stay_in_float32_under_autocast(
    variant: dict[str, Any],
) -> None:
    net = small_net(label_dim=4, **variant)
    dtypes: dict[str, set[torch.dtype]] = {}
    kinds = {"Linear": "embedding", "Conv2d": "convolution"}
    for name, module in net.named_modules():
        if kind := kinds.get(type(module).__name__):
            label = "output" if name.endswith(("aux_conv", "out_conv")) else kind
            module.register_forward_hook(
                lambda _m, _i, out, label=label: dtypes.setdefault(label, set()).add(out.dtype)
            )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net(images(2), conditions(2))
    assert dtypes["embedding"] == {torch.float32}
    assert dtypes["output"] == {torch.float32}
    assert dtypes["convolution"] == {torch.bfloat16}


@pytest.mark.parametrize("variant", FAMILIES)
def test_graph_has_no_breaks_and_equals_the_eager_network(variant: dict[str, Any]) -> None:
    torch._dynamo.reset()  # all networks share one forward, of which eight graphs are kept
    net = small_net(label_dim=4, **variant)
    arguments = images(2), conditions(2), torch.eye(4)[:2], torch.tensor([True, False])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*arguments), net(*arguments))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(*arguments), net(*arguments))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", FAMILIES)
def test_graph_of_the_forward_derivative_equals_the_eager_one(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).double().to(device)
    arguments = images(2).double().to(device), conditions(2).double().to(device)

    def derivative(x: torch.Tensor, c_noise: torch.Tensor) -> tuple[Any, ...]:
        return torch.func.jvp(net, (x, c_noise), (x.flip(0), torch.ones_like(c_noise)))

    with torch.no_grad():
        backend = "inductor" if device == "cuda" else "aot_eager"
        compiled = torch.compile(derivative, fullgraph=True, backend=backend)(*arguments)
        torch.testing.assert_close(compiled, derivative(*arguments))
