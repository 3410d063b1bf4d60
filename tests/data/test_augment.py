"""Augmentation: labels and frequencies, exact operations, affine maps and colours."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.augment import AUGMENTATIONS, Augmentations, apply, draw, edm, flips, label_dim
from data.augment.color import color_matrices
from data.augment.geometry import SYM6, affine, downsampling, upsampling
from torch_utils.errors import UserError

CPU = torch.device("cpu")
GEOMETRY = {"scale": 1.0, "rotate_frac": 1.0, "aniso": 1.0, "translate_frac": 1.0}
GRAY_AXIS = torch.ones(3, dtype=torch.float64) / math.sqrt(3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(num: int = 4, channels: int = 3, height: int = 10, width: int = 14) -> Tensor:
    return torch.randn([num, channels, height, width], generator=generator(num))


def everything(p: float) -> Augmentations:
    """All 13."""
    return Augmentations(p, dict.fromkeys(AUGMENTATIONS, 1.0))


def given(name: str, *values: float, whole: bool = False) -> dict[str, Tensor]:
    """One variate an image, of one augmentation."""
    return {name: torch.tensor(values, dtype=torch.int64 if whole else torch.float64)}


# ----- labels and draws


def test_the_labels_of_edms_set_stand_in_the_published_order() -> None:
    params = {
        "xflip": torch.tensor([1, 0]),
        "yflip": torch.tensor([0, 1]),
        "scale": torch.tensor([0.5, 0.0], dtype=torch.float64),
        "rotate_frac": torch.tensor([0.3, 0.0], dtype=torch.float64),
        "aniso": torch.tensor([2.0, 0.0], dtype=torch.float64),
        "aniso_angle": torch.tensor([0.7, 1.0], dtype=torch.float64),
        "translate_frac": torch.tensor([[0.1, -0.2], [0.0, 0.0]], dtype=torch.float64),
    }
    _, labels = apply(pictures(2), params)
    turned = [math.cos(0.3) - 1, math.sin(0.3)]
    stretched = [2 * math.cos(0.7), 2 * math.sin(0.7)]
    expected = torch.tensor(
        [[1, 0, 0.5, *turned, *stretched, 0.1, -0.2], [0, 1, 0, 0, 0, 0, 0, 0, 0]]
    )
    torch.testing.assert_close(labels, expected)
    assert labels.dtype == torch.float32


def test_labels_of_whole_pixel_moves_say_what_was_carried_out() -> None:
    _, turns = apply(pictures(4, width=10), given("rotate_int", 0, 1, 2, 3, whole=True))
    assert turns.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    shift = torch.tensor([[1.0, -1.0], [0.2, 0.7]], dtype=torch.float64)
    _, labels = apply(pictures(2, height=16, width=24), {"translate_int": shift})
    torch.testing.assert_close(labels, torch.tensor([[1, -1], [1 / 3, 0.5]]))


def test_the_width_of_the_labels_is_known_beforehand() -> None:
    assert label_dim(edm(0.12)) == 9
    assert label_dim(edm(0.0)) == 0
    assert label_dim(flips()) == 1
    for settings in (edm(0.5), flips(), everything(0.5), Augmentations(1, {"hue": 0.1})):
        params = draw(generator(), 3, settings)
        assert apply(pictures(3, width=10), params)[1].shape == (3, label_dim(settings))


def test_gates_pass_as_often_as_they_should() -> None:
    num = 20_000
    params = draw(generator(), num, everything(0.3))
    for name, variate in params.items():
        share = float((variate != 0).double().view(num, -1).amax(1).mean())
        visible = {"xflip": 1 / 2, "yflip": 1 / 2, "lumaflip": 1 / 2, "rotate_int": 3 / 4}
        expected = 0.5 if name == "aniso_angle" else 0.3 * visible.get(name, 1.0)
        assert share == pytest.approx(expected, abs=0.015), name
    both = (draw(generator(), num, edm(0.12))["xflip"], draw(generator(), num, flips())["xflip"])
    for mirrored in both:
        assert float(mirrored.double().mean()) == pytest.approx(0.5, abs=0.015)
    twice = draw(generator(), num, Augmentations(0.2, {"scale": 2.0}))["scale"]
    assert float((twice != 0).double().mean()) == pytest.approx(0.4, abs=0.015)


def test_variates_have_their_distributions() -> None:
    params = draw(generator(), 20_000, everything(1.0))
    for name in ("scale", "aniso", "translate_frac", "brightness", "contrast", "saturation"):
        assert float(params[name].std()) == pytest.approx(1, abs=0.03), name
        assert float(params[name].mean()) == pytest.approx(0, abs=0.03), name
    for name, largest in (("rotate_frac", math.pi), ("hue", math.pi), ("translate_int", 1.0)):
        assert params[name].abs().max() <= largest, name
        assert float(params[name].std()) == pytest.approx(largest / math.sqrt(3), rel=0.02), name
    assert params["rotate_int"].bincount().tolist() == pytest.approx([5000] * 4, rel=0.05)


def test_the_same_generator_gives_the_same_images() -> None:
    for settings in (edm(0.5), everything(0.5)):
        first, second = (
            apply(pictures(8, width=10), draw(generator(3), 8, settings)) for _ in range(2)
        )
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'scale'"):
        Augmentations(0.1, {"scal": 1})
    with pytest.raises(UserError, match=r"probability is 1.5"):
        edm(1.5)
    with pytest.raises(UserError, match="must not be negative"):
        Augmentations(0.1, {"scale": -1})


# ----- images


def test_images_that_nothing_happens_to_keep_every_bit() -> None:
    images = pictures(64, height=12, width=12)
    unchanged, labels = apply(images, draw(generator(), 64, everything(0.0)))
    assert torch.equal(unchanged, images)
    assert labels.shape == (64, 0)
    changed, labels = apply(images, draw(generator(), 64, everything(0.05)))
    alone = ~labels.any(1)
    assert 10 < int(alone.sum()) < 54
    assert torch.equal(changed[alone], images[alone])
    assert not any(torch.equal(a, b) for a, b in zip(changed[~alone], images[~alone], strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_neighbours(channels: int) -> None:
    images = pictures(16, channels, 12, 12)
    params = draw(generator(), 16, everything(0.8))
    together, labels = apply(images, params)
    for index in range(16):
        one = {name: variate[index : index + 1] for name, variate in params.items()}
        alone, label = apply(images[index : index + 1], one)
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-5)
        assert torch.equal(label[0], labels[index])


def test_arguments_are_left_as_they_are() -> None:
    images, params = pictures(8, width=10), draw(generator(), 8, everything(1.0))
    before = images.clone(), {name: variate.clone() for name, variate in params.items()}
    apply(images, params)
    assert torch.equal(images, before[0])
    assert all(torch.equal(params[name], before[1][name]) for name in params)


@pytest.mark.parametrize(("name", "dim"), [("xflip", 3), ("yflip", 2)])
def test_flips_flip_and_undo_themselves(name: str, dim: int) -> None:
    images = pictures(2, channels=5)
    flipped, _ = apply(images, given(name, 1, 0, whole=True))
    assert torch.equal(flipped[0], images[0].flip(dim - 1))
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(apply(flipped, given(name, 1, 0, whole=True))[0], images)


def test_quarter_turns_are_those_of_rot90_after_the_flips() -> None:
    images = pictures(4, width=10)
    turned, _ = apply(images, given("rotate_int", 0, 1, 2, 3, whole=True))
    for turns in range(4):
        assert torch.equal(turned[turns], images[turns].rot90(turns, (1, 2)))
    both = given("rotate_int", 1, 1, 1, 1, whole=True) | given("xflip", 1, 1, 1, 1, whole=True)
    assert torch.equal(apply(images, both)[0], images.flip(3).rot90(1, (2, 3)))


def test_whole_pixel_shifts_mirror_the_border() -> None:
    images = pictures(3, height=16, width=24)
    shift = torch.tensor([[1.0, 0.0], [-1 / 3, 1.0], [0.1, 0.1]], dtype=torch.float64)
    moved, _ = apply(images, {"translate_int": shift})
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (4, 4), (4, 4)], mode="reflect")
    for image, source, (right, down) in zip(moved, padded, [(3, 0), (-1, 2), (0, 0)], strict=True):
        # up is positive: row i shows row i + down
        expected = source[:, 4 + down : 20 + down, 4 - right : 28 - right]
        assert np.array_equal(image.numpy(), expected)


def test_what_shapes_rule_out_is_refused() -> None:
    with pytest.raises(UserError, match="rotate_int needs square images, these are 10x14"):
        apply(pictures(1), given("rotate_int", 0, whole=True))
    with pytest.raises(UserError, match="1 or 3 channels, these have 2"):
        apply(pictures(1, channels=2), given("hue", 0.0))
    for size in (1, 2):
        tiny, _ = apply(pictures(4, 2, size, size), draw(generator(), 4, edm(1.0)))
        assert tiny.isfinite().all()


# ----- affine maps


@pytest.mark.parametrize("size", [5, 6, 24])
def test_the_filters_reconstruct_an_image_that_stays_where_it_is(size: int) -> None:
    first = 2 * (size - 1 - 3)  # downsampling reads from 3 pixels beyond the border
    fine = upsampling(size, CPU)[first : first + 2 * (size + 6)]
    torch.testing.assert_close(downsampling(size, CPU) @ fine, torch.eye(size), rtol=0, atol=1e-6)


def test_a_map_next_to_the_identity_reconstructs_the_image() -> None:
    images = pictures(2)
    for name in GEOMETRY:
        variate = torch.full((2, 2), 1e-9) if name == "translate_frac" else torch.full((2,), 1e-9)
        params = {name: variate.double()}
        if name == "aniso":
            params["aniso_angle"] = torch.tensor([0.4, 2.0], dtype=torch.float64)
        torch.testing.assert_close(apply(images, params)[0], images, rtol=0, atol=1e-4)


def smooth(height: int = 32, width: int = 24) -> Tensor:
    """Waves of a few pixels' length, [1, 1, H, W]."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    return (torch.sin(0.35 * x + 0.2 * y) + torch.cos(0.25 * y - 0.1 * x))[None, None]


def test_half_a_turn_turns_and_a_shift_shifts() -> None:
    images = smooth()
    turned, _ = apply(images, given("rotate_frac", -math.pi))
    # the wavelet is not quite symmetric
    torch.testing.assert_close(turned, images.flip(2, 3), rtol=0, atol=0.1)
    shift = torch.tensor([[1.0, -0.5]], dtype=torch.float64)  # 3 right, 2 up
    moved, _ = apply(images, {"translate_frac": shift})
    torch.testing.assert_close(moved[..., :29, 4:], images[..., 2:31, 1:21], rtol=0, atol=1e-3)


def test_a_positive_angle_turns_counterclockwise() -> None:
    images = smooth(24, 24)
    turned, _ = apply(images, given("rotate_frac", math.pi / 2))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), rtol=0, atol=0.1)


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_scales_and_stretches_change_lengths(angle: float) -> None:
    """A blob of standard deviations 3 and 3 becomes one of s 3 and 3 / s."""
    grid = torch.arange(48) - 23.5
    blob = torch.exp(-(grid[:, None] ** 2 + grid**2) / (2 * 3.0**2))[None, None]

    def deviations(image: Tensor) -> tuple[float, float]:
        share = image[0, 0] / image.sum()
        return (
            float((share.sum(1) * grid**2).sum().sqrt()),
            float((share.sum(0) * grid**2).sum().sqrt()),
        )

    scaled, _ = apply(blob, given("scale", 2.0))
    assert deviations(scaled) == pytest.approx([3 * 2**0.4] * 2, rel=0.02)
    stretch = given("aniso", 2.0) | given("aniso_angle", angle)
    lengths = [3 * 2**-0.4, 3 * 2**0.4]
    found = deviations(apply(blob, stretch)[0])
    assert found == pytest.approx(lengths if angle == 0 else lengths[::-1], rel=0.02)


def test_the_published_algorithm_gives_the_same_images() -> None:
    """They differ where filters reach beyond the margin, which there is one for the whole batch."""
    for seed, (height, width) in enumerate([(24, 24), (32, 20), (8, 6)] * 8):
        params = draw(generator(seed), 6, Augmentations(1.0, GEOMETRY))
        images = torch.randn([6, 2, height, width], generator=generator(seed))
        ours, _ = apply(images, params)
        theirs = published_resampling(images.double(), affine(params, height, width))
        largest = theirs.flatten(1).abs().amax(1)
        assert float(((ours - theirs).flatten(1).abs().amax(1) / largest).max()) < 3e-4


def published_resampling(images: Tensor, maps: Tensor) -> Tensor:
    """Steps 1 to 5 of the published algorithm, with padding and convolutions, in float64."""
    num, channels, height, width = images.shape
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    corners = torch.cat([signs * half, torch.ones(4, 1, dtype=torch.float64)], 1)
    reached = (maps @ corners.T)[:, :2]
    margin = torch.cat([-reached, reached], 1).amax((0, 2)) + 6 - half.repeat(2)
    margin = margin.clamp(min=0).minimum(2 * half.repeat(2)).ceil()
    left, top, right, bottom = map(int, margin.tolist())
    images = F.pad(images, (left, right, top, bottom), mode="reflect")

    def diagonal(x: float, y: float) -> Tensor:
        return torch.diag(torch.tensor([x, y, 1], dtype=torch.float64))

    def shift(x: float, y: float) -> Tensor:
        return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)

    taps = torch.tensor(SYM6, dtype=torch.float64)
    for dim in (3, 2):
        zeros = torch.zeros_like(images)
        images = torch.stack([images, zeros], dim + 1).flatten(dim, dim + 1)
        images = images.narrow(dim, 0, images.shape[dim] - 1)
        images = filtered(images, taps.flip(0), dim, padding=6, stride=1)
    maps = shift((left - right) / 2, (top - bottom) / 2) @ maps
    maps = diagonal(2, 2) @ maps @ diagonal(0.5, 0.5)
    maps = shift(-0.5, -0.5) @ maps @ shift(0.5, 0.5)
    fine_height, fine_width = images.shape[2:]
    out_height, out_width = 2 * (height + 6), 2 * (width + 6)
    maps = diagonal(2 / fine_width, 2 / fine_height) @ maps
    maps = maps @ diagonal(out_width / 2, out_height / 2)
    size = [num, channels, out_height, out_width]
    grid = F.affine_grid(maps[:, :2], size, align_corners=False)
    images = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    for dim, length in ((3, width), (2, height)):
        images = filtered(images, taps, dim, padding=5, stride=2).narrow(dim, 3, length)
    return images


def filtered(images: Tensor, taps: Tensor, dim: int, *, padding: int, stride: int) -> Tensor:
    """Correlate every line along a dimension with the taps."""
    lines = images.movedim(dim, -1)
    flat = lines.reshape(-1, 1, lines.shape[-1])
    result = F.conv1d(flat, taps[None, None], padding=padding, stride=stride)
    return result.view(*lines.shape[:-1], -1).movedim(-1, dim)


# ----- colours


def matrix(name: str, value: float) -> Tensor:
    return color_matrices(given(name, value))[0]


def test_color_matrices_do_what_their_names_say() -> None:
    color = torch.tensor([0.2, -0.4, 0.7, 1.0], dtype=torch.float64)
    luma = (color[:3] @ GRAY_AXIS) * GRAY_AXIS
    changed: dict[str, Callable[[float], Tensor]] = {
        "brightness": lambda w: color[:3] + 0.2 * w,
        "contrast": lambda w: color[:3] * 2 ** (0.5 * w),
        "lumaflip": lambda w: color[:3] - 2 * luma * w,
        "saturation": lambda w: luma + (color[:3] - luma) * 2**w,
    }
    for name, expected in changed.items():
        torch.testing.assert_close((matrix(name, 1.0) @ color)[:3], expected(1.0))
        torch.testing.assert_close(matrix(name, 0.0), torch.eye(4, dtype=torch.float64))


def test_a_third_of_the_hue_circle_permutes_the_colors() -> None:
    turn = matrix("hue", 2 * math.pi / 3)
    red, green, blue = torch.eye(4, dtype=torch.float64)[:3]
    torch.testing.assert_close(turn @ red, green)
    torch.testing.assert_close(turn @ green, blue)
    torch.testing.assert_close(turn[:3, :3] @ GRAY_AXIS, GRAY_AXIS)
    torch.testing.assert_close(matrix("lumaflip", 1) @ matrix("lumaflip", 1), torch.eye(4).double())


def test_colors_change_one_after_the_other() -> None:
    values = {"brightness": 1.0, "contrast": -1.0, "lumaflip": 1.0, "hue": 0.5, "saturation": 0.4}
    images = pictures(1)
    together, _ = apply(images, {k: v for n, w in values.items() for k, v in given(n, w).items()})
    expected = images
    for name, value in values.items():
        expected, _ = apply(expected, given(name, value))
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)


def test_gray_images_change_like_gray_colors() -> None:
    gray = pictures(3, channels=1)
    params = draw(generator(), 3, Augmentations(1.0, dict.fromkeys(values_of_color(), 1.0)))
    as_rgb, labels = apply(gray.expand(-1, 3, -1, -1), params)
    changed, same = apply(gray, params)
    torch.testing.assert_close(changed, as_rgb.mean(1, keepdim=True), rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, same)


def values_of_color() -> list[str]:
    return ["brightness", "contrast", "lumaflip", "hue", "saturation"]


# ----- device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_images_and_nothing_waits_for_it() -> None:
    images = pictures(32, width=10)
    params = draw(generator(), 32, everything(0.5))
    expected, labels = apply(images, params)
    on_gpu = images.cuda()
    apply(on_gpu, params)  # constant matrices are built once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, told = apply(on_gpu, params)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(told.cpu(), labels)
