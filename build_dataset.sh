#!/usr/bin/env bash
# Builds dist/: the Kaggle dataset with hpa_kit and the wheels that Kaggle's image lacks, by any Python without a
# package: `hpa-kit kaggle bundle`, which gets the arguments, if any (--help lists them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "build_dataset.sh: $python is missing or older than Python 3.10; put a newer one first in PATH" >&2
    exit 1
}
exec "$python" -m hpa_kit.cli kaggle bundle "$@"
