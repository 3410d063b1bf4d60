"""Blocks called by a compiler: what is compiled, what stays eager, and that nothing else differs.

Graphs are traced here, and some differentiated, without making kernels, which takes seconds a
graph; those are in test_kernels.py.
"""

import copy
import os
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from networks.blocks import UNetBlock, set_remat
from networks.compiled import BlockCompiler, set_compiler
from tests.networks.small import conditions, images, small_net
from tests.networks.test_modes import gradients


def blocks_of(net: nn.Module) -> list[UNetBlock]:
    """The network's blocks."""
    return [module for module in net.modules() if isinstance(module, UNetBlock)]


def traced(net: nn.Module, backend: str = "eager") -> BlockCompiler:
    """A compiler without kernels for a network's blocks."""
    compiler = BlockCompiler(backend)
    assert set_compiler(net, compiler) == len(blocks_of(net))
    return compiler


def repeated() -> nn.Module:
    """A network of eight blocks, of which several are of one kind."""
    return small_net(num_blocks=3, channel_mult=[1], attn_resolutions=[]).train()


def test_blocks_that_differ_in_their_weights_alone_share_a_graph() -> None:
    net = repeated()
    compiler = traced(net, "aot_eager")
    found = gradients(net)
    assert len(blocks_of(net)) > compiler.num_graphs
    num = compiler.num_graphs
    with torch.compiler.set_stance("fail_on_recompile"):
        again = gradients(net)
    assert compiler.num_graphs == num
    set_compiler(net, None)
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(found[name], gradient, msg=name)
        assert torch.equal(found[name], again[name]), name


def test_a_new_kind_of_call_runs_eagerly_once_the_compiler_is_closed() -> None:
    net = repeated()
    compiler = traced(net)
    gradients(net)
    compiler.is_open, num = False, compiler.num_graphs
    expected = copy.deepcopy(net)
    set_compiler(expected, None)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in (1, 2, 3):
            for is_trained in (True, False):
                net.train(is_trained)
                given = images(batch), conditions(batch)
                with torch.no_grad():
                    assert torch.equal(net(*given), expected.train(is_trained)(*given))
    assert compiler.num_graphs == num


def test_evaluation_and_autocast_have_graphs_of_their_own() -> None:
    net = repeated()
    compiler = traced(net)
    gradients(net)
    num = compiler.num_graphs
    with torch.no_grad():
        net.eval()(images(3), conditions(3))
        assert compiler.num_graphs == 2 * num
        with torch.autocast("cpu", torch.bfloat16):
            net(images(3), conditions(3))
        assert compiler.num_graphs == 3 * num


def test_names_copies_and_pickles_are_those_of_an_eager_network() -> None:
    net = repeated()
    names = list(net.state_dict()), [name for name, _ in net.named_modules()]
    compiler = traced(net)
    gradients(net)
    num = compiler.num_graphs
    assert names == (list(net.state_dict()), [name for name, _ in net.named_modules()])
    other = copy.deepcopy(net)
    assert all(block.compiler is compiler for block in blocks_of(other))
    gradients(other)
    assert compiler.num_graphs == num  # a copy has graphs already
    assert all(block.compiler is None for block in blocks_of(pickle.loads(pickle.dumps(net))))


def test_forward_derivatives_of_compiled_blocks_are_taken_eagerly() -> None:
    net, compiler = repeated(), BlockCompiler("aot_eager")

    def slope(x: Tensor) -> Tensor:
        def call(at: Tensor) -> Any:
            return net(at, conditions(2))

        found: Tensor = torch.func.jvp(call, (x,), (torch.ones_like(x),))[1]
        return found

    expected = slope(images(2))
    set_compiler(net, compiler)
    assert torch.equal(slope(images(2)), expected)
    assert compiler.num_graphs == 0


def test_compiled_dropout_is_a_function_of_the_seed_with_remat_or_without() -> None:
    net = small_net(dropout=0.3, channel_mult=[1], attn_resolutions=[]).train()
    traced(net, "aot_eager")
    expected = gradients(net, seed=5)
    set_remat(net, True)
    found = gradients(net, seed=5)
    other = gradients(net, seed=6)
    assert any(not torch.equal(gradient, other[name]) for name, gradient in found.items())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_graphs_that_were_made_outside_ddp_serve_within_it() -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    try:
        net = repeated()
        compiler = traced(net)
        expected = gradients(net)
        compiler.is_open = False
        wrapped = nn.parallel.DistributedDataParallel(net)
        with torch.compiler.set_stance("fail_on_recompile"):
            found = gradients(net, wrapped)
    finally:
        torch.distributed.destroy_process_group()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_inference_mode_is_another_kind_of_call() -> None:
    """PyTorch compiles a function anew for it, which a preview must not wait for."""
    net = repeated().eval()
    compiler = traced(net)
    with torch.no_grad():
        net(images(2), conditions(2))
    compiler.is_open, num = False, compiler.num_graphs
    with torch.compiler.set_stance("fail_on_recompile"), torch.inference_mode():
        net(images(2), conditions(2))
    assert compiler.num_graphs == num
