#!/bin/sh
# Finds a Python that is new enough; setup.py does the rest. PYTHON=... names another one.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && found=$PYTHON
        return
    fi
    # An environment that is there keeps its Python. A version switcher puts names on PATH that may not run: each is tried.
    for candidate in .venv/bin/python python3.13 python3.12 python3.11 python3; do
        if fits "$candidate"; then
            found=$candidate
            return
        fi
    done
}

found=
find_python || true
if [ -z "$found" ] && [ -z "${PYTHON:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "set-up: no Python 3.11 or newer; installing Debian's (apt-get install python3 python3-venv)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv; } </dev/null || true
    find_python || true
fi
if [ -z "$found" ]; then
    if [ -n "${PYTHON:-}" ]; then
        echo "set-up: PYTHON=$PYTHON does not run or is older than Python 3.11" >&2
    else
        echo "set-up: no Python 3.11 or newer on PATH" >&2
    fi
    echo "  get one: sudo apt-get install python3 python3-venv    (Debian 12, Ubuntu 24.04 or newer)" >&2
    echo "  or name one: make run PYTHON=/path/to/python3.12" >&2
    exit 1
fi
exec "$found" scripts/setup.py
