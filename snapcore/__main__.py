"""`python3 -m snapcore`."""

import sys

from snapcore.cli import main

sys.exit(main())
