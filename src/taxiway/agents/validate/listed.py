"""The files that a check hands to its tool: all of them, or it has not measured."""

from __future__ import annotations

from pathlib import Path

from taxiway.agents.validate.check import Context, NotMeasured
from taxiway.agents.validate.files import FILES, python_files

__all__ = ["listed"]


def listed(context: Context, folder: Path, *, suffixes: tuple[str, ...] = (".py", ".pyw")) -> list[str]:
    """The files with Python in them, as paths from the checkout; also written to `folder`: `files` holds a line for each,
    with a leading `./` that keeps a file named like an option from being one. Raise NotMeasured where there is none, or
    one that a tool cannot be given."""
    files = python_files(context.checkout, suffixes=suffixes)
    if not files:
        raise NotMeasured("there is no Python file")
    if len(files) >= FILES:
        raise NotMeasured(f"there are more than {FILES} Python files")
    root = context.checkout.resolve()
    for path in files:
        place = context.checkout / path
        if "\n" in path:
            raise NotMeasured(f"{path!r} has a line break in its name")
        if not place.is_file() or not place.resolve().is_relative_to(root):
            raise NotMeasured(f"{path} is a link out of the project, or no plain file")
    (folder / "files").write_text("".join(f"./{f}\n" for f in files), "utf-8", "surrogateescape")
    return files
