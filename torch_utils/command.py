"""What every command line shares: one-line errors with exit code 2, and option types.

No torch here, so that `--help` answers at once.
"""

import re
import sys
import traceback
from typing import Any

import click

from torch_utils import leaving, threads
from torch_utils.addresses import address_of, is_url, shown
from torch_utils.errors import Failure, UserError, explained, nearest, unknown_name
from torch_utils.files import DISK_FULL
from torch_utils.kept_memory import keep_freed_memory
from torch_utils.leaving import exit_process
from torch_utils.no_memory import is_out_of_memory, shortage

# what other systems, and other programs of ours, call an option by: each row means the same
SAME = (
    ("data", "source", "images", "dataset"),
    ("dest", "outdir", "out", "output"),
    ("network", "snapshot", "model", "checkpoint", "ckpt", "pkl"),
    ("seeds", "seed"),
    ("num", "max_images"),
    ("resume", "continue"),
)


def _one_line(error: click.ClickException) -> str:
    """The message of a click error without its usage block."""
    if isinstance(error, click.NoSuchOption):
        return unknown_option(error)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return missing(error.param)
    return " ".join(error.format_message().split())


def unknown_option(error: click.NoSuchOption) -> str:
    """The line for an option that a command does not have; it names the one that was meant."""
    name, parameters = error.option_name, error.ctx.command.params if error.ctx else []
    known = {flag.lstrip("-"): flag for p in parameters for flag in (*p.opts, *p.secondary_opts)}
    given = name.lstrip("-").replace("-", "_")
    same = {other for row in SAME if given in row for other in row}
    near = [known[other] for other in sorted(same & known.keys())]
    published = explained("option", name)
    near = near or [known[other] for other in nearest(given, known, 1 if published else None)]
    if near:
        return f"unknown option {name}: did you mean {' or '.join(near)}?"
    return f"unknown option {name}: {published or 'see --help'}"


def _flag(parameter: click.Parameter) -> str:
    """What a parameter is called where it is typed."""
    if isinstance(parameter, click.Option):
        return parameter.opts[0]
    return parameter.metavar or (parameter.name or "").upper()


def missing(parameter: click.Parameter) -> str:
    """The line for an option or argument that must be given; it says what it is for."""
    if not isinstance(parameter, click.Option):
        return f"missing argument {_flag(parameter)}"
    meaning = (parameter.help or "").removesuffix(".")
    flag = f"{parameter.opts[0]}={parameter.metavar}" if parameter.metavar else parameter.opts[0]
    return f"missing option {flag}: {meaning[:1].lower()}{meaning[1:]}"


class Command(click.Command):
    """A click command that reports what the user did wrong in one line, with exit code 2.

    Args:
        args, kwargs: of `click.Command`.
        needs_less: how to make the command take less memory; shown when memory runs out.
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
        """Call the command; running out of memory becomes a failure with advice.

        Raises:
            Failure: the machine does not have enough memory.
        """
        try:
            return super().invoke(ctx)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise Failure(f"{shortage(error)}: {self.needs_less}") from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command and end the process with its exit code.

        A program that has not loaded PyTorch gets the thread settings of `torch_utils.threads`,
        and each keeps freed memory (`torch_utils.kept_memory`).

        Args:
            args, kwargs: of `click.Command.main`. With `standalone_mode=False`, for a call from
                Python, the command's result is returned, and errors are raised, including those of
                the command line.

        Raises:
            UserError, Failure: what would end the process with exit code 2 or 1.
        """
        is_program = kwargs.pop("standalone_mode", True)
        kwargs["standalone_mode"] = False
        if not is_program:
            return self._run(*args, **kwargs)
        threads.set_defaults()
        keep_freed_memory()
        try:
            result = self._run(*args, **kwargs)
        except (UserError, Failure) as error:
            print(f"error: {error}", file=sys.stderr)
            exit_process(2 if isinstance(error, UserError) else 1)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            exit_process(130)
        except Exception:
            if leaving.has_joined_group:  # the other processes must not wait for this one
                traceback.print_exc()
                exit_process(1)
            raise
        exit_process(result if isinstance(result, int) else 0)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The command's result, or its exit code if it ends early, e.g. after --help."""
        try:
            return super().main(*args, **kwargs)
        except click.ClickException as error:
            raise UserError(_one_line(error)) from None
        except click.Abort:
            raise KeyboardInterrupt from None
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = f" {error.filename}" if error.filename else ""
            raise Failure(f"cannot write{where}: {error.strerror}; make room") from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a URL is refused as it was typed, except where a parameter is `UrlOrPath`."""
        self._refuse_urls(args)
        return super().parse_args(ctx, args)

    def _refuse_urls(self, args: list[str]) -> None:
        """Refuse URLs for parameters that take none, before they are looked for on the disk."""
        options = {flag: p for p in self.params if isinstance(p, click.Option) for flag in p.opts}
        words = [p for p in self.params if isinstance(p, click.Argument)]
        takers = sorted({_flag(p) for p in self.params if isinstance(p.type, UrlOrPath)})
        for before, text in zip(["", *args], args, strict=False):
            match = re.fullmatch(r"(?:([\w.-]+)=)?([A-Za-z][A-Za-z0-9+.-]*://.*)", text, re.DOTALL)
            if not match:
                continue
            flag, url = match[1], match[2]
            option = options.get(flag or before)
            is_value = option is not None and not option.is_flag
            owners = [option] if is_value else [] if flag else words
            if any(owner and isinstance(owner.type, UrlOrPath) for owner in owners):
                continue
            reads = "this program reads local files, not URLs"
            if takers:
                *others, last = takers
                named = f"{', '.join(others)} and {last}" if others else last
                reads = f"URLs are for {named} only"
            given = f"{flag}={shown(url)}" if flag else shown(url)
            raise UserError(f"{given}: {reads}: download it, and give the file")


class Group(Command, click.Group):
    """A group of subcommands with the same error reporting."""

    command_class = Command

    def _refuse_urls(self, args: list[str]) -> None:
        """Refuse those before the name of the subcommand, which looks at the others itself."""
        names = (i for i, text in enumerate(args) if text[:1] != "-" and not is_url(text))
        super()._refuse_urls(args[: next(names, len(args))])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the subcommand; an unknown one is reported with the nearest name."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


MAX_INTS = 10_000_000  # in one list: more would fill the memory before the work begins


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
            match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
            if not match:
                self.fail(f"{value!r} is not a list of integers like 0,3,7-9")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part.strip()} is empty")
            if len(numbers) + last - first >= MAX_INTS:
                self.fail(f"{value!r} names more than {MAX_INTS:,} integers")
            numbers.extend(range(first, last + 1))
        return numbers


class UrlOrPath(click.ParamType):  # type: ignore[type-arg]
    """A path, a name, or a URL that may be fetched: `https://host/file`, or with `#sha256=HEX`.

    An option or argument of this type takes URLs; every other one refuses them.
    """

    name = "path or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a URL before the work; nothing is fetched, and a path is not looked for."""
        text = str(value)
        if is_url(text):
            address_of(text)
        return text


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


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
