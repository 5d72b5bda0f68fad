"""`python -m provision` is `sgprov`, for where the command is not on the PATH."""

import sys

from provision.cli import main

if __name__ == "__main__":
    sys.exit(main())
