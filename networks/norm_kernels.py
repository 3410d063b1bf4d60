"""Kernels of group norm with a condition, SiLU and dropout, in Triton.

With u = x + added, group means m and variances v of u (Wu & He 2018), r = 1/sqrt(v + eps),

    xhat = (u - m) r,    z = a xhat + b,    y = z sigmoid(z)  or  y = z,

where a = weight (1 + scale) and b = bias (1 + scale) + shift in each channel, and what dropout does
not keep is 0, the rest of y multiplied by a factor. Backwards, with
dz = dy sigmoid(z) (1 + z (1 - sigmoid(z))) and D elements in a group,

    dx = r (a dz - sum(a dz)/D - xhat sum(a dz xhat)/D),

the sums over the group; the gradient of x from elsewhere may be added. Those of weight, bias and
condition take the sums of dz, dz xhat and xhat over the pixels of a channel, which are at hand.

A program computes one group of one image: a tile of channels and pixels, at once where it fits,
else pixel block by pixel block. Arithmetic is in float32; tensors keep their dtypes. It needs
triton, so that only what launches them imports it, where a GPU is at hand.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

# what a condition does; kernels have the numbers, as a launch looks at every global of theirs
NOTHING, ADDED, SCALE_SHIFT = 0, 1, 2


@triton.jit
def _channel(pointer, channel, is_channel):
    """Numbers of the channels of a group, in float32; zero beyond its last one."""
    return tl.load(pointer + channel, mask=is_channel, other=0.0).to(tl.float32)


@triton.jit
def _place(c, is_channel, p, width, pixels):
    """Offsets of a tile in its group, and which of them exist."""
    return c[:, None] * pixels + p[None, :], is_channel[:, None] & (p < pixels)[None, :]


@triton.jit
def _tile(pointer, offset, mask):
    """A tile in float32; zero where there is nothing."""
    return tl.load(pointer + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _dropped(values, kept, offset, mask, factor, DROPS: tl.constexpr):
    """Values or gradients after dropout."""
    if DROPS:
        values *= factor * tl.load(kept + offset, mask=mask, other=0).to(tl.float32)
    return values


@triton.jit
def _activated(z, SILU: tl.constexpr):
    if SILU:
        z = z * tl.sigmoid(z)
    return z


@triton.jit
def _deactivated(gradient, z, SILU: tl.constexpr):
    """The gradient of z from that of the result."""
    if SILU:
        s = tl.sigmoid(z)
        gradient = gradient * s * (1.0 + z * (1.0 - s))
    return gradient


@triton.jit
def group_norm_forward_kernel(
    x,  # [N, groups * width, pixels]
    weight,  # [groups * width]
    bias,
    condition,  # rows of groups * width, or twice as many, numbers
    kept,  # like x: 0 or 1
    y,
    statistics,  # [2, N, groups]: means, then 1/sqrt(variance + eps)
    groups,
    width,  # channels of a group
    pixels,
    condition_stride,  # between rows
    eps,
    factor,  # on what is kept
    MODULATION: tl.constexpr,
    SILU: tl.constexpr,
    DROPS: tl.constexpr,
    WHOLE: tl.constexpr,
    CHANNELS: tl.constexpr,  # size of a tile
    PIXELS: tl.constexpr,
):
    """The forward pass of one group of one image."""
    row = tl.program_id(0).to(tl.int64)
    sample, group = row // groups, row % groups
    c, p = tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    is_channel = c < width
    channel = group * width + c
    a, b = _channel(weight, channel, is_channel), _channel(bias, channel, is_channel)
    added = tl.zeros_like(a)
    own = condition + sample * condition_stride
    if MODULATION == 1:
        added = _channel(own, channel, is_channel)
    if MODULATION == 2:
        scale = 1.0 + _channel(own, channel, is_channel)
        a = a * scale
        b = b * scale + _channel(own + groups * width, channel, is_channel)
    x += row * width * pixels
    y += row * width * pixels
    kept += row * width * pixels
    size = width * pixels * 1.0
    if WHOLE:
        offset, mask = _place(c, is_channel, p, width, pixels)
        u = tl.where(mask, _tile(x, offset, mask) + added[:, None], 0.0)
        m = tl.sum(u) / size
        centred = tl.where(mask, u - m, 0.0)
        r = tl.rsqrt(tl.sum(centred * centred) / size + eps)
        z = centred * r * a[:, None] + b[:, None]
        result = _dropped(_activated(z, SILU), kept, offset, mask, factor, DROPS)
        tl.store(y + offset, result, mask=mask)
    else:
        # mean and squared deviations of each place of the tile, joined at the end: the updates of
        # Welford (1962) and Chan et al. (1979), which lose nothing where the mean is large
        means = tl.zeros([CHANNELS, PIXELS], tl.float32)
        squares = tl.zeros([CHANNELS, PIXELS], tl.float32)
        nums = tl.zeros([CHANNELS, PIXELS], tl.float32)
        num_blocks = 0.0
        for first in range(0, pixels, PIXELS):
            offset, mask = _place(c, is_channel, first + p, width, pixels)
            u = _tile(x, offset, mask) + added[:, None]
            nums += mask.to(tl.float32)
            delta = tl.where(mask, u - means, 0.0)
            num_blocks += 1.0
            means += delta / num_blocks
            squares += delta * (u - means)
        m = tl.sum(nums * means) / size
        apart = means - m
        r = tl.rsqrt(tl.sum(squares + nums * apart * apart) / size + eps)
        for first in range(0, pixels, PIXELS):
            offset, mask = _place(c, is_channel, first + p, width, pixels)
            u = _tile(x, offset, mask) + added[:, None]
            z = (u - m) * r * a[:, None] + b[:, None]
            result = _dropped(_activated(z, SILU), kept, offset, mask, factor, DROPS)
            tl.store(y + offset, result, mask=mask)
    tl.store(statistics + row, m)
    tl.store(statistics + tl.num_programs(0) + row, r)


@triton.jit
def group_norm_backward_kernel(
    gradient,  # of the result
    through,  # gradient of x from elsewhere
    x,
    weight,
    bias,
    condition,
    kept,
    statistics,
    dx,
    by_image,  # [2, N, groups * width]: what each image gives to the weight, and to the bias
    dcondition,
    groups,
    width,
    pixels,
    condition_stride,
    dcondition_stride,
    factor,
    MODULATION: tl.constexpr,
    SILU: tl.constexpr,
    DROPS: tl.constexpr,
    ADDS: tl.constexpr,  # whether there is one from elsewhere
    WHOLE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """The backward pass of one group of one image."""
    row = tl.program_id(0).to(tl.int64)
    sample, group = row // groups, row % groups
    c, p = tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    is_channel = c < width
    channel = group * width + c
    num_channels = groups * width
    w, v = _channel(weight, channel, is_channel), _channel(bias, channel, is_channel)
    a, b = w, v
    added = tl.zeros_like(w)
    scale = added + 1.0
    own = condition + sample * condition_stride
    if MODULATION == 1:
        added = _channel(own, channel, is_channel)
    if MODULATION == 2:
        scale += _channel(own, channel, is_channel)
        a = w * scale
        b = v * scale + _channel(own + num_channels, channel, is_channel)
    gradient += row * width * pixels
    through += row * width * pixels
    kept += row * width * pixels
    x += row * width * pixels
    dx += row * width * pixels
    size = width * pixels * 1.0
    m, r = tl.load(statistics + row), tl.load(statistics + tl.num_programs(0) + row)
    if WHOLE:
        offset, mask = _place(c, is_channel, p, width, pixels)
        xhat = tl.where(mask, (_tile(x, offset, mask) + added[:, None] - m) * r, 0.0)
        dy = _dropped(_tile(gradient, offset, mask), kept, offset, mask, factor, DROPS)
        dz = _deactivated(dy, xhat * a[:, None] + b[:, None], SILU)
        sum_dz, sum_dz_xhat = tl.sum(dz, axis=1), tl.sum(dz * xhat, axis=1)
        sum_xhat = tl.sum(xhat, axis=1)
    else:
        of_dz = tl.zeros([CHANNELS, PIXELS], tl.float32)
        of_dz_xhat = tl.zeros([CHANNELS, PIXELS], tl.float32)
        of_xhat = tl.zeros([CHANNELS, PIXELS], tl.float32)
        for first in range(0, pixels, PIXELS):
            offset, mask = _place(c, is_channel, first + p, width, pixels)
            xhat = tl.where(mask, (_tile(x, offset, mask) + added[:, None] - m) * r, 0.0)
            dy = _dropped(_tile(gradient, offset, mask), kept, offset, mask, factor, DROPS)
            dz = _deactivated(dy, xhat * a[:, None] + b[:, None], SILU)
            of_dz += dz
            of_dz_xhat += dz * xhat
            if MODULATION == 1:
                of_xhat += xhat
        sum_dz, sum_dz_xhat = tl.sum(of_dz, axis=1), tl.sum(of_dz_xhat, axis=1)
        sum_xhat = tl.sum(of_xhat, axis=1)
    of_mean, of_std = tl.sum(a * sum_dz) / size, tl.sum(a * sum_dz_xhat) / size
    if WHOLE:
        found = r * (dz * a[:, None] - of_mean - xhat * of_std)
        if ADDS:
            found += _tile(through, offset, mask)
        tl.store(dx + offset, found, mask=mask)
    else:
        for first in range(0, pixels, PIXELS):
            offset, mask = _place(c, is_channel, first + p, width, pixels)
            xhat = (_tile(x, offset, mask) + added[:, None] - m) * r
            dy = _dropped(_tile(gradient, offset, mask), kept, offset, mask, factor, DROPS)
            dz = _deactivated(dy, xhat * a[:, None] + b[:, None], SILU)
            found = r * (dz * a[:, None] - of_mean - xhat * of_std)
            if ADDS:
                found += _tile(through, offset, mask)
            tl.store(dx + offset, found, mask=mask)
    place = by_image + sample * num_channels + channel
    tl.store(place, scale * sum_dz_xhat, mask=is_channel)
    tl.store(place + tl.num_programs(0) * width, scale * sum_dz, mask=is_channel)
    own = dcondition + sample * dcondition_stride + channel
    if MODULATION == 1:
        found = r * (a * sum_dz - pixels * of_mean - of_std * sum_xhat)
        tl.store(own, found, mask=is_channel)
    if MODULATION == 2:
        tl.store(own, w * sum_dz_xhat + v * sum_dz, mask=is_channel)
        tl.store(own + num_channels, sum_dz, mask=is_channel)
