"""Run several command lines one after the other: `... programs train.py ARGS -- fid.py ref ARGS`.

Each runs in a child of one process that has imported what all of them need, which takes longer than
the programs themselves. One that begins with --ranks=N runs in N processes, see tests/launching.py.
"""

import gc
import importlib
import os
import runpy
import sys

from tests.launching import launch

_IMPORTED = (
    *("torch._dynamo", "torch.distributed", "torch.utils.tensorboard", "data.dataset"),
    *("generation.setup", "metrics.frechet", "samplers.command_line", "scoring.command_line"),
    *("training.loop", "training.recipes"),
)


def main() -> None:
    """Run the programs until one fails; its exit code is ours."""
    for name in _IMPORTED:
        importlib.import_module(name)
    programs: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            programs.append([])
        else:
            programs[-1].append(word)
    gc.collect()
    gc.freeze()  # or a child that looks for garbage, as at its end, would copy all this memory
    for program in programs:
        child = os.fork()
        if child == 0:
            if program[0].startswith("--ranks="):
                launch(int(program.pop(0).removeprefix("--ranks=")))
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")  # our scripts end the process
            raise AssertionError(f"{program[0]} returned")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 0:
            sys.exit(f"{' '.join(program)}: exit code {code}")


if __name__ == "__main__":
    main()
