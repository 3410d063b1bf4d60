"""Residual blocks run by kernels of torch.compile: a graph for each kind of block and of call.

A kind is what blocks have in common that differ in their weights only, which are inputs of the
graph; a network of twenty blocks has about eight kinds. Every graph is a function of its own: the
graphs of one function would be tried in turn at every call, and only few of them are kept.
"""

import types
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from networks.blocks import UNetBlock

Compiled = Callable[[UNetBlock, Tensor, Tensor], Tensor]


class BlockCompiler:
    """Calls blocks, compiled for the kinds of call that came while it was open.

    A kind of call is a kind of block with shapes, memory layout, dtypes, autocast, and whether it
    trains. A kind that is new when the compiler is closed runs eagerly, so that a preview or a last
    batch of another size does not wait for a compilation. Numbers of dropout are the kernels' own,
    drawn from a seed that the default generator gives: the same after `torch.manual_seed`, but
    not those of the eager block.

    Copies of a network share it, and pickles are without it.

    Attributes:
        is_open: whether new kinds are compiled.
    """

    def __init__(self, backend: str = "inductor") -> None:
        """Start without graphs.

        Args:
            backend: of torch.compile.
        """
        self.is_open = True
        self._backend = backend
        self._functions: dict[tuple[Any, ...], Compiled] = {}
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._known: WeakKeyDictionary[UNetBlock, int] = WeakKeyDictionary()

    def __deepcopy__(self, memo: dict[int, Any]) -> "BlockCompiler":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    @property
    def num_graphs(self) -> int:
        """How many kinds of call were compiled."""
        return len(self._functions)

    def __call__(self, block: UNetBlock, x: Tensor, emb: Tensor) -> Tensor:
        """What `block.plain(x, emb)` computes."""
        kind = self._known.get(block)
        if kind is None:
            kind = self._known[block] = self._kinds.setdefault(_described(block), len(self._kinds))
        device = x.device.type
        is_cast = torch.is_autocast_enabled(device)
        call = (
            *(kind, x.shape, x.stride(), x.dtype, x.device, emb.shape, emb.dtype),
            *(x.requires_grad, emb.requires_grad, block.training, torch.is_grad_enabled()),
            torch.is_inference_mode_enabled(),
            torch.get_autocast_dtype(device) if is_cast else None,
        )
        function = self._functions.get(call)
        if function is None:
            if not self.is_open:
                return block.plain(x, emb)
            function = self._functions[call] = self._new_function()
        return function(block, x, emb)

    def _new_function(self) -> Compiled:
        """The arithmetic of a block, compiled at its first call, with a cache of its own."""
        plain = UNetBlock.plain
        code = plain.__code__.replace(co_name=f"block_{self.num_graphs}")
        own = types.FunctionType(code, plain.__globals__, code.co_name)
        # a graph that breaks, or a function that is compiled too often, is an error, not slow
        return torch.compile(own, backend=self._backend, fullgraph=True, dynamic=False)


def set_compiler(network: nn.Module, compiler: BlockCompiler | None) -> int:
    """Let a compiler call all blocks of a network; None for eager blocks.

    Names of modules and tensors stay what they are.

    Returns:
        How many blocks the network has.
    """
    blocks = [module for module in network.modules() if isinstance(module, UNetBlock)]
    for block in blocks:
        block.compiler = compiler
    return len(blocks)


# what says how a block is called, and not what it computes
_OF_CALLS = ("training", "remat", "compiler")


def _described(block: UNetBlock) -> tuple[Any, ...]:
    """All that decides what a block computes, but for the values of its weights."""
    return tuple(
        (
            name,
            type(module).__name__,
            *((p_name, p.shape, p.dtype) for p_name, p in module.named_parameters(recurse=False)),
            *(
                (key, repr(value))
                for key, value in sorted(vars(module).items())
                if key[0] != "_" and key not in _OF_CALLS
            ),
        )
        for name, module in block.named_modules()
    )
