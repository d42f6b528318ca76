"""`python -m sslk.cli`, as torchrun starts it."""

import sys

from sslk.cli import main

sys.exit(main())
