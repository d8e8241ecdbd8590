"""``python -m eventlog``: the command line."""

import sys

from eventlog.cli import main

if __name__ == "__main__":
    sys.exit(main())
