"""``python -m hpa_kit.cli``: the command line where no script is installed."""

import sys

from hpa_kit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
