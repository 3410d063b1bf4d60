"""Reader of v-diffusion-torch's network."""

from importers.naming import Naming, Part, Shapes, Unit, interleave, swap_halves
from importers.reading import Given, Reading, count, multiples, size


def _naming(attention: list[bool], class_embed: str) -> Naming:
    def locate(unit: Unit) -> tuple[str, str]:
        if unit.side == "mid":
            return f"middle.{2 * unit.index}", "middle.1"
        name = f"{unit.side}samples.level_{unit.level}.{unit.index}"
        return (f"{name}.0", f"{name}.1") if attention[unit.level] else (name, "")

    return Naming(
        first="in_conv",
        layers={
            "map_layer0": Part(("time_embed.0",)),
            "map_layer1": Part(("time_embed.2",)),
            "map_label": Part((class_embed,)),
            "out_norm": Part(("out_conv.0",)),
            "out_conv": Part(("out_conv.2",)),
        },
        locate=locate,
        residual={
            "norm0": Part(("norm1",)),
            "conv0": Part(("conv1",)),
            "affine": Part(("fc",), swap_halves),
            "norm1": Part(("norm2",)),
            "conv1": Part(("conv2",)),
            "skip": Part(("skip",)),
        },
        attention={
            "norm2": Part(("norm",)),
            "qkv": Part(("proj_in",), interleave),
            "proj": Part(("proj_out",)),
        },
    )


def read_v_diffusion(shapes: Shapes, given: Given) -> Reading:
    """Read the shapes of v-diffusion's network.

    Args:
        shapes: foreign name -> shape.
        given: the caller's config, with num_heads or head_dim, or both; and with the prediction
            unless the network has two outputs (x0_eps, there called both).

    Returns:
        The reading.

    Raises:
        UserError: the shapes are not those of such a network.
    """
    family = given.family
    unit = size(family, shapes, "time_embed.0.weight", 1)
    num_levels = 0
    while any(name.startswith(f"downsamples.level_{num_levels}.") for name in shapes):
        num_levels += 1
    attention = [
        f"downsamples.level_{level}.0.1.norm.weight" in shapes for level in range(num_levels)
    ]
    prefixes = [
        f"downsamples.level_{level}.0{'.0' if has else ''}" for level, has in enumerate(attention)
    ]
    widths = [size(family, shapes, f"{prefix}.conv1.weight", 0) for prefix in prefixes]
    # The deepest level has no resampling unit, which looks like a block.
    deepest = f"downsamples.level_{num_levels - 1}.{{}}{'.0' if attention[-1:] == [True] else ''}"
    class_embed = "class_embed.1" if "class_embed.1.weight" in shapes else "class_embed"
    has_labels = f"{class_embed}.weight" in shapes
    img_channels = size(family, shapes, "in_conv.weight", 1)
    out_channels = size(family, shapes, "out_conv.2.weight", 0)
    heads = given.heads(_attention_widths(family, shapes))
    return Reading(
        network="vdiff",
        naming=_naming(attention, class_embed),
        inferred={
            "model_channels": unit,
            "channel_mult": multiples(family, widths, unit),
            "emb_channels": size(family, shapes, "time_embed.0.weight", 0),
            "num_blocks": count(shapes, f"{deepest}.conv1.weight"),
            "img_channels": img_channels,
            "out_channels": out_channels,
            "label_dim": size(family, shapes, f"{class_embed}.weight", 1) if has_labels else 0,
            "multi_tags": has_labels and class_embed == "class_embed",
            **({"prediction": "x0_eps"} if out_channels == 2 * img_channels else {}),
            **(heads or {}),
        },
        assumed={"dropout": 0.0},
        attention=attention,
        missing=[] if heads else ["num_heads or head_dim"],
    )


def _attention_widths(family: str, shapes: Shapes) -> list[tuple[int, int]]:
    """(channels, width of all heads) of each attention."""
    names = [name for name in shapes if name.endswith(".proj_in.weight")]
    return [(size(family, shapes, name, 1), size(family, shapes, name, 0) // 3) for name in names]
