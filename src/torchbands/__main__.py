"""`python -m torchbands` is `bands`."""

import sys

from torchbands.cli import main

if __name__ == "__main__":
    sys.exit(main())
