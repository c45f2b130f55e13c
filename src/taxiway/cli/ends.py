"""How a command ends: its exit codes, and errors as one message without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from taxiway.errors import SpecError, TaxiwayError

__all__ = ["FAULT", "INTERRUPTED", "REFUSED", "USAGE", "runs_or_refuses", "told"]

REFUSED = 1
"""It could not be done, and the message says what to do."""
USAGE = 2
"""Wrong use; of `run` and `retry`: nothing was started."""
FAULT = 70
"""A fault in Taxiway."""
INTERRUPTED = 130


def told(error: Exception) -> str | None:
    """An error as its message; None where it is a fault of ours."""
    if isinstance(error, SpecError):
        return str(error)
    if isinstance(error, TaxiwayError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        hint = "mend the permissions of the file and its folder" if isinstance(error, PermissionError) else "mend the path or the disk"
        return f"error: cannot use {error.filename}: {error.strerror or error}\n  hint: {hint}"
    return None


@contextmanager
def runs_or_refuses(context: typer.Context) -> Iterator[None]:
    """Around what starts or goes on with a run: an exit code of 1 says there that the run failed, so errors end with another."""
    try:
        yield
    except (TaxiwayError, OSError) as error:
        text = told(error)
        if context.obj or text is None:
            raise
        typer.echo(text, err=True)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
