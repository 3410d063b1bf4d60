"""What every command line shares: one-line errors with exit code 2, and option types.

No torch here, so that `--help` answers at once.
"""

import re
import sys
import traceback
from typing import Any

import click

from torch_utils import leaving
from torch_utils.errors import Failure, UserError, unknown_name
from torch_utils.files import DISK_FULL
from torch_utils.leaving import leave
from torch_utils.no_memory import is_out_of_memory, shortage
from torch_utils.published import hint


def _one_line(error: click.ClickException) -> str:
    """The message of a click error without its usage block."""
    if isinstance(error, click.NoSuchOption):
        near, published = error.possibilities, hint(error.option_name)
        help_text = f"did you mean {near[0]}?" if near else "see --help"
        return f"unknown option {error.option_name}: {published or help_text}"
    return " ".join(error.format_message().split())


class Command(click.Command):
    """A click command that reports what the user did wrong in one line, with exit code 2.

    Args:
        args, kwargs: of `click.Command`.
        needs_less: what makes the command take less memory, for when there is not enough.
    """

    def __init__(
        self,
        *args: Any,
        needs_less: str = "end other programs, or use a larger machine",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.needs_less = needs_less

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; to be out of memory is a failure with a way out, not a defect.

        Raises:
            Failure: the machine has not enough memory.
        """
        try:
            return super().invoke(ctx)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise Failure(f"{shortage(error)}: {self.needs_less}") from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command and leave the process with its exit code."""
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.Exit as done:
            leave(done.exit_code)
        except click.ClickException as error:
            print(f"error: {_one_line(error)}", file=sys.stderr)
            leave(2)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            leave(2)
        except Failure as error:
            print(f"error: {error}", file=sys.stderr)
            leave(1)
        except (click.Abort, KeyboardInterrupt):
            print("stopped", file=sys.stderr)
            leave(130)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                where = f" {error.filename}" if error.filename else ""
                print(f"error: cannot write{where}: {error.strerror}; make room", file=sys.stderr)
                leave(1)
            if leaving.needs_short_way:  # the other processes must not wait for this one
                traceback.print_exc()
                leave(1)
            raise
        leave(result if isinstance(result, int) else 0)


class Group(Command, click.Group):
    """A group of subcommands with the same error reporting."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the subcommand; an unknown one is reported with the nearest name."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class IntList(click.ParamType):  # type: ignore[type-arg]
    """Comma-separated integers and inclusive ranges: `0,3,7-9` is [0, 3, 7, 8, 9]."""

    name = "ints"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Parse the list; it must name at least one integer."""
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if not match:
                self.fail(f"{value!r} is not a list of integers like 0,3,7-9")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part.strip()} is empty")
            numbers.extend(range(first, last + 1))
        return numbers


class Size(click.ParamType):  # type: ignore[type-arg]
    """Width and height, `WxH` or `W,H`, as a pair of integers (W, H)."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the pair; both must be positive."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)[x,](\d+)", str(value))
        if not match or not int(match[1]) or not int(match[2]):
            self.fail(f"{value!r} is not a size like 32x32")
        return int(match[1]), int(match[2])
