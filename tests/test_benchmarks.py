"""Benchmarks run and measure the right thing; what they measure is never judged here."""

import json
from pathlib import Path

import torch

from benchmarks.reference_step import reference_forward
from tests.command import run
from tests.networks.small import conditions, images, small_net


def test_the_plain_network_is_the_same_arithmetic() -> None:
    net = small_net(label_dim=4, num_blocks=2)
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    labels = torch.eye(4)[:3]
    with torch.no_grad():
        for given in (None, labels):
            expected = net(images(3), conditions(3), given)
            found = reference_forward(state, images(3), conditions(3), given)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_precision_benchmark_writes_a_row_for_every_band(tmp_path: Path) -> None:
    from tests.test_generate_cli import write_snapshot

    snapshot = write_snapshot(tmp_path / "net.safetensors", 0)
    out = tmp_path / "out.json"
    import numpy as np

    from torch_utils.images import save_png

    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (1, 8, 6), dtype=np.uint8)
        save_png(tmp_path / "data" / f"{index}.png", noise)
    done = run(
        "benchmarks/bench_precision.py",
        *(f"--network={snapshot}", f"--data={tmp_path / 'data'}", "--device=cpu", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert len(record["bands"]) == 5
    for band in record["bands"]:
        assert 0 < band["fp16"] < band["bf16"] < band["rms_D"]
    assert {"device", "torch", "commit"} <= record["hardware"].keys()
