"""The command ``edgefl``: a table of verbs, each imported when it is used."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from edgefl.cli.namesake import namesake_warning
from edgefl.cli.output import end_output, progress
from edgefl.errors import EdgeflError, MissingDependencyError
from edgefl.parts import VERBS, Verb, load, needing
from edgefl.version import __version__

__all__ = ["main"]

_INTERRUPTED = 130
"""The exit code that a shell gives to what SIGINT has ended."""

app = typer.Typer(
    name="edgefl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgefl {__version__}")  # noqa: T201 - what was asked for
        if warning := namesake_warning():
            progress(warning)
        raise typer.Exit


class _Verbs(TyperGroup):
    """The table of verbs: one is imported when it is used or completed, none to list them."""

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        """See click; the verb's own command takes the place of the line in the table."""
        name, listed, rest = super().resolve_command(ctx, args)
        try:
            found = _command(VERBS[str(name)])
        except MissingDependencyError:
            if ctx.resilient_parsing:  # somebody completes a word; an error would be printed into their line
                return name, listed, rest
            raise
        if not ctx.resilient_parsing:
            ctx.obj.expect()
        return name, found, rest

    def invoke(self, ctx: Any) -> Any:
        """See click; what a verb imports only when it is used may be missing as well."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            with needing(VERBS[str(ctx.invoked_subcommand)].part):
                raise


@app.callback(cls=_Verbs)
def _edgefl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Federated learning of Keras models on edge devices."""


def _command(verb: Verb) -> Any:
    """The command of a verb, of which its part is imported."""
    found = getattr(load(verb.part), verb.attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command()(function)
    return typer.main.get_command(found)


def _listed() -> None:
    """Stands in the table for a verb that is not imported."""


for _name, _verb in VERBS.items():
    app.command(
        _name,
        help=_verb.summary,
        rich_help_panel=_verb.panel,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_listed)


class _Interruption:
    """Ctrl-C, which is remembered: an import or a binding that it hits may make an error of its own of it.

    Attributes:
        happened: whether it was pressed.
    """

    def __init__(self) -> None:
        self.happened = False

    def expect(self) -> None:
        """Lets Ctrl-C be a ``KeyboardInterrupt`` from now on."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits with a code of docs/errors.md."""
    arguments = sys.argv[1:] if arguments is None else arguments
    interruption = _Interruption()
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="edgefl", obj=interruption)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if interruption.happened:
            sys.exit(_INTERRUPTED)
        if not isinstance(error, EdgeflError):
            raise
        _report(error, as_json="--format=json" in arguments or _follows(arguments, "--format", "json"))
        sys.exit(error.exit_code)
    finally:
        end_output()
    sys.exit(0)


def _follows(arguments: list[str], first: str, second: str) -> bool:
    return (first, second) in itertools.pairwise(arguments)


def _report(error: EdgeflError, *, as_json: bool) -> None:
    line = f"edgefl: {error}"
    if as_json:
        line = json.dumps(
            {
                "error": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )
    progress(line)


if __name__ == "__main__":
    main()
