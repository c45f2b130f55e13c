"""Check that a wheel holds every tracked file of both packages, byte for byte, and the shipped pipelines."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

_PLACES = {"src/": "", "operators/": "", "pipelines/": "taxiway/examples/"}


def main(arguments: list[str]) -> int:
    """Print what is missing or different; 1 if there is any."""
    root = Path(__file__).resolve().parent.parent
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z", *_PLACES], capture_output=True, check=True, text=True).stdout
    with zipfile.ZipFile(arguments[0]) as wheel:
        names = set(wheel.namelist())
        faults = []
        for name in filter(None, listing.split("\0")):
            top = next(place for place in _PLACES if name.startswith(place))
            inside = _PLACES[top] + name.removeprefix(top)
            if inside not in names:
                faults.append(f"{name}: not in the wheel")
            elif wheel.read(inside) != (root / name).read_bytes():
                faults.append(f"{name}: differs in the wheel")
    for fault in faults:
        print(fault)
    print(f"{len(names)} files in the wheel, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
