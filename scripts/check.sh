#!/bin/sh
# Runs every check, says how each ended, and fails if one did.
set -u
cd "$(dirname "$0")/.."
failed=

check() {
    name=$1
    shift
    if output=$("$@" 2>&1 </dev/null); then
        echo "ok      $name"
    else
        echo "FAILED  $name: $*"
        printf '%s\n' "$output" | sed 's/^/        /'
        failed="$failed $name"
    fi
}

bin=.venv/bin
check format "$bin/ruff" format --check .
check lint "$bin/ruff" check .
check types "$bin/mypy"
check contracts "$bin/lint-imports"
check specs "$bin/taxiway" check pipelines
check schema "$bin/taxiway" schema --check schemas/pipeline.schema.json
check reference "$bin/python" scripts/reference.py --check
check constraints "$bin/python" scripts/check_constraints.py
check tree "$bin/python" scripts/check_tree.py

if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
