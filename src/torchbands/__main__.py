"""`python -m torchbands` is `bands`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: what lies there is nobody's module, as with the command `bands`

from torchbands.cli import main

if __name__ == "__main__":
    sys.exit(main())
