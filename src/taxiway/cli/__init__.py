"""The `taxiway` command. Each module of this package registers its own commands."""

from __future__ import annotations

import sys

import typer

from taxiway import __version__
from taxiway.cli import authoring, cost, detect, maintain, run, runs, services, spec, trials
from taxiway.cli.ends import FAULT, REFUSED, told

__all__ = ["main"]

app = typer.Typer(
    name="taxiway",
    help="From one YAML file to a running, healthy service, on Apache Airflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
authoring.register(app)
spec.register(app)
trials.register(app)
detect.register(app)
run.register(app)
runs.register(app)
cost.register(app)
services.register(app)
maintain.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"taxiway {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """From one YAML file to a running, healthy service, on Apache Airflow."""
    del version
    context.obj = debug


def main() -> None:
    """Run the command; end with its exit code, an error as one message without a traceback."""
    debug = "--debug" in sys.argv
    try:
        # `python -m taxiway.cli` and whoever calls this are `taxiway` to the user, and to a shell's completion.
        app(prog_name="taxiway")
    except Exception as error:
        if debug:
            raise
        if (text := told(error)) is not None:
            typer.echo(text, err=True)
            sys.exit(REFUSED)
        # A fault of ours: a message too, and the way to the traceback.
        hint = "this is a fault in Taxiway; run `taxiway --debug ...` and report it"
        typer.echo(f"error: {type(error).__name__}: {error}\n  hint: {hint}", err=True)
        sys.exit(FAULT)
