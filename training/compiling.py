"""Blocks of a run compiled before its first step: all processes compile, or none does."""

import contextlib
import time

from losses.batch import Batch, Draws
from networks.compiled import BlockCompiler, set_compiler
from torch_utils.kernel_cache import kept_folders, kernel_folder, remove_damaged
from torch_utils.no_memory import is_out_of_memory
from torch_utils.untouched import generators
from training.trainer import Trainer

# what PyTorch raises, or the words in it, for what a machine lacks
_MISSING = {
    "InvalidCxxCompiler": "there is no C++ compiler (g++, or what CXX names)",
    "TritonMissing": "Triton is not installed",
    "Python.h": "Python's headers are not installed (python3-dev)",
}
_FAILURES = {"CppCompileError": "the C++ compiler failed"}  # of sources that may be damaged
_LONGEST = 200  # letters of what PyTorch says


def compile_blocks(
    trainer: Trainer, batch: Batch, draws: Draws, compiler: BlockCompiler | None = None
) -> str | None:
    """Compile what a step calls of the blocks, of the weights and of their average.

    A micro-batch is tried, which changes nothing that a step depends on. Whatever fails, in any
    process, leaves the blocks of all as they were. All processes must call. Libraries of C++ on
    disk that a kill has cut off are compiled anew.

    Args:
        trainer: before a step.
        batch, draws: a micro-batch as the steps have it.
        compiler: of the blocks; None for a new one.

    Returns:
        A line for the log; None if the network has no blocks.

    Raises:
        RuntimeError: out of memory, in words that `is_out_of_memory` knows.
    """
    compiler = compiler or BlockCompiler()
    reason, start = "", time.monotonic()
    num = set_compiler(trainer.denoiser, compiler)
    set_compiler(trainer.average, compiler)
    if not num:
        return None
    folder, num_damaged = None, 0
    try:
        folder = kernel_folder()
        num_damaged = 0 if folder is None else len(remove_damaged(folder))
        with generators(trainer.world.device):
            trainer.rehearse(batch, draws)
    except Exception as error:  # a compiler may fail in any way
        if is_out_of_memory(error):
            raise
        reason = reason_of(error)
    compiler.is_open = False
    trainer.world.meet()  # one may take minutes longer than the others
    is_unknown = bool(reason) and reason not in _MISSING.values()
    has_failed, may_be_damage = trainer.world.any(bool(reason), is_unknown)
    if has_failed:
        for module in (trainer.denoiser, trainer.average):
            set_compiler(module, None)
        line = f"not compiled, blocks run eagerly: {reason or 'it failed in another process'}"
        return line + _advice() if may_be_damage else line
    spent = time.monotonic() - start
    line = f"compiled {num} blocks in {spent:.1f} s: {compiler.num_graphs} graphs"
    return f"{line}; damaged files removed from {folder}: {num_damaged}" if num_damaged else line


def _advice() -> str:
    """What to do if damage was the reason; empty if nobody knows where kernels are."""
    folders = ""
    with contextlib.suppress(Exception):  # it may be this question that has failed before
        folders = " and ".join(map(str, kept_folders()))
    return f"; if a kernel on disk is damaged, remove {folders}" if folders else ""


def reason_of(error: BaseException) -> str:
    """Why a compilation failed, in plain words, or else in those of its first cause."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = getattr(cause, "inner_exception", None) or cause.__cause__ or cause.__context__
    texts = [f"{type(each).__name__}: {each}" for each in chain]
    for sign, words in (_MISSING | _FAILURES).items():
        if any(sign in text for text in texts):
            return words
    return texts[0].splitlines()[0][:_LONGEST]
