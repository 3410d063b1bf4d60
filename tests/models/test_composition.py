"""What a network is made of: counts compared with counts by hand, and with those of a real call."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.build import build
from models.composition import REST, Part, composition, lines_of, parts_of
from models.config import ModelConfig
from networks import NETWORKS
from networks.blocks import BlockSettings, UNetBlock
from networks.layers import Conv2d

SMALL = {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


class Twice(nn.Module):
    """A list of layers, a number of its own, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList([Conv2d(2, 3, 3), nn.Dropout(0.5)])
        self.again = Conv2d(3, 3, 1)
        self.matrix = nn.Parameter(torch.ones(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.first:
            x = layer(x)
        return self.again(self.again(x)) @ self.matrix


def test_a_block_with_attention_has_the_flops_counted_by_hand() -> None:
    block = UNetBlock(8, 16, 12, BlockSettings(num_heads=2), attention=True)
    pixels = 4 * 6
    conv1, skip, proj = 9 * 16 * 16 * pixels, 8 * 16 * pixels, 16 * 16 * pixels
    multiplications = {
        "conv0": 9 * 8 * 16 * pixels,
        "qkv": 16 * 3 * 16 * pixels,
        # queries times keys, weights times values, and the layers that the block adds up itself
        REST: 2 * 16 * pixels**2 + conv1 + skip + proj,
    }
    found = parts_of(block, torch.ones(1, 8, 4, 6), torch.ones(1, sum(block.condition_widths)))
    assert {p.name: p.flops for p in found if p.flops} == {
        name: 2 * number for name, number in multiplications.items()
    }
    shapes = {part.name: part.shape for part in found}
    assert shapes["conv0"] == (16, 4, 6)
    assert shapes["qkv"] == (3 * 16, 4, 6)


def test_lists_are_counted_item_by_item_and_what_runs_twice_counts_twice() -> None:
    net = Twice()
    assert parts_of(net, torch.ones(1, 2, 4, 6)) == [
        Part("first.0", 2 * 3 * 9 + 3, (3, 4, 6), 2 * 9 * 2 * 3 * 24),
        Part("again", 3 * 3 + 3, (3, 4, 6), 2 * 2 * 3 * 3 * 24),
        Part(REST, 36, None, 2 * 3 * 4 * 6 * 6),
    ]
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_every_network_add_up_to_the_real_one(name: str) -> None:
    config = ModelConfig(
        network={"name": name, **{k: v for k, v in SMALL.items() if k in NETWORKS[name].options}},
        img_resolution=(8, 12),
        img_channels=3,
        label_dim=4,
    )
    network, state = build(config).model.eval(), torch.get_rng_state()
    parts = composition(config)
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.ones(1, 3, 8, 12), torch.ones(1), torch.ones(1, 4))
    assert sum(part.flops for part in parts) == counter.get_total_flops() > 0


def test_a_network_larger_than_any_machine_can_be_taken_apart() -> None:
    options = {"name": "adm", "model_channels": 65536}
    config = ModelConfig(network=options, img_resolution=(64, 64), img_channels=3)
    assert sum(part.parameters for part in composition(config)) > 10**13


@pytest.mark.parametrize(
    ("flops", "unit", "cell"),
    [
        (21_500_000_000, "GFLOPs", "21.500"),
        (3_456_000, "MFLOPs", "3.456"),
        (120, "kFLOPs", "0.120"),
    ],
)
def test_the_table_has_a_row_for_each_part_and_their_sum(flops: int, unit: str, cell: str) -> None:
    parts = [Part("enc.conv", 1000, (3, 8, 12), flops), Part("norm", 24, (7,))]
    rows = [line.split() for line in lines_of(parts)]
    assert rows == [
        ["block", "output", "parameters", unit, "an", "image"],
        ["enc.conv", "3x8x12", "1,000", cell],
        ["norm", "7", "24", "0.000"],
        ["total", "1,024", cell],
    ]
    assert len(set(map(len, lines_of(parts)))) == 1
