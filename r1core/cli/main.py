"""`r1core`: verbs are listed without importing them, and every error of the user's ends as one clear line.

Exit codes: 0 done, 1 the work failed, 2 the user's input is wrong. `R1CORE_DEBUG=1` shows tracebacks.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings

import click

from r1core import __version__
from r1core.errors import R1Error, UserError
from r1core.host import CoreHost

VERBS = {
    "adapt": "Prepare, train, evaluate and report: everything, continuing where it stood.",
    "check": "Report every problem of a recipe, its plugins and data before any weight is loaded.",
    "plan": "Print what is trained, weight by weight of each role, and forecast time and memory.",
    "prepare": "Read, check and annotate the records.",
    "train": "Train the adapter and the extra layers.",
    "evaluate": "Measure all systems on the test split.",
    "generate": "Answer a prompt with an adapted model, under the rules.",
    "merge": "Write base and adapter as one plain Hugging Face model.",
    "report": "Write the report and the model card.",
    "verify": "Recheck every hash that a run's manifest states.",
    "plugins": "List installed plugins, or show one.",
    "domains": "List installed domains, or show one.",
    "models": "List the base models that plugins provide.",
    "new": "Start a plugin or a domain of your own.",
}
"""Verb to its one-line help: `r1core --help` prints these and imports nothing."""


class LazyGroup(click.Group):
    """Verbs of the core by name, and verbs of plugins by entry point; a verb is imported when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Core verbs in the order of a run, then plugins' verbs."""
        return [*VERBS, *sorted(self._plugin_verbs())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one verb."""
        if name in VERBS:
            module = importlib.import_module(f"r1core.cli.{name}")
            command: click.Command = module.command
            return command
        if name in self._plugin_verbs():
            from r1core.plugins.find import find
            from r1core.plugins.registry import COMMANDS

            found = find(COMMANDS, name)
            if not isinstance(found.target, click.Command):
                said = f"verb {name!r} of {found.origin} is of type {type(found.target).__name__}"
                raise UserError(f"{said}, expected a click.Command", fix=f"mend the entry point in {found.module}")
            return found.target
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with the nearest verb for an unknown one."""
        if self.get_command(ctx, args[0]) is None:
            from r1core.recipe.problems import did_you_mean

            near = did_you_mean(args[0], self.list_commands(ctx))
            raise UserError(
                f"no verb {args[0]!r}", fix=f"did you mean `r1core {near}`?" if near else "see r1core --help"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List verbs from the table and from metadata."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))
        if others := self._plugin_verbs():
            with formatter.section("Verbs of plugins"):
                formatter.write_dl(sorted(others.items()))

    @staticmethod
    def _plugin_verbs() -> dict[str, str]:
        from r1core.plugins.registry import COMMANDS, installed

        return {one.name: one.summary for one in installed(COMMANDS) if one.name not in VERBS}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="r1core")
def root() -> None:
    """Adapt a language model to a professional domain; everything domain-specific is a plugin."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    debug = bool(os.environ.get("R1CORE_DEBUG"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    if not debug:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
        logging.getLogger("transformers").setLevel(logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = root.main(args=argv, prog_name="r1core", standalone_mode=False, obj=CoreHost())
    except R1Error as error:
        if debug:
            raise
        sys.exit(tell(error))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"  fix: see `{error.ctx.command_path} --help`", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: the same command continues from the last stage or checkpoint", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        click.echo(f"error: {type(error).__name__}: {error} (R1CORE_DEBUG=1 shows where)", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def tell(error: R1Error) -> int:
    """Print an error as one line, its fix as the next; return its exit code."""
    for line in str(error).splitlines():
        click.echo(f"error: {line}", err=True)
    if isinstance(error, UserError) and error.fix:
        click.echo(f"  fix: {error.fix}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
