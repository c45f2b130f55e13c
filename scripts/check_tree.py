"""Check that no tracked file names a package registry's host or a place of the machine that it was written on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# In pieces, so that this file passes its own check. Where packages come from is each machine's own setting.
_HOSTS = (("py", "pi.org"), ("python", "hosted.org"), ("npm", "js.org"), ("npm", "js.com"), ("yarn", "pkg.com"), ("crates", ".io"))
REGISTRIES = re.compile("|".join(re.escape(a + b) for a, b in _HOSTS) + r"|^\s*--(?:extra-)?index-url[ =]\S*//", re.IGNORECASE)
_SHALLOW = 2


def machine_places(root: Path, home: Path) -> re.Pattern[str]:
    """Absolute paths that only mean something here: this checkout's, the home folder's, and what lies under a user's home.

    A folder right below / (such as a container's /app) says nothing about a machine.
    """
    places = [re.escape(str(p)) for p in (root, home) if len(p.parts) > _SHALLOW]
    return re.compile("|".join([*(p + r"(?![\w-])" for p in places), r"/(?:Users|" + "work" + r")/\w+/"]))


def tracked(root: Path) -> Iterator[Path]:
    """The files that git knows."""
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in listing.split(b"\0"):
        path = root / os.fsdecode(name)
        if name and path.is_file() and not path.is_symlink():
            yield path


def faults(root: Path, files: Iterable[Path], patterns: Iterable[tuple[str, re.Pattern[str]]]) -> Iterator[str]:
    """`path:line: what`, for each line that a pattern finds; files that are no text are passed over."""
    wanted = list(patterns)
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            for what, pattern in wanted:
                if match := pattern.search(line):
                    yield f"{path.relative_to(root)}:{number}: {what}: {match[0]}"


def main() -> int:
    """Print the faults; 1 if there are any."""
    root = Path(__file__).resolve().parent.parent
    patterns = [("a registry's host", REGISTRIES), ("a path of one machine", machine_places(root, Path.home()))]
    found = list(faults(root, tracked(root), patterns))
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
