"""`python -m reconciler.cli` is `plumb`, for whoever knows an interpreter and not a path to the command."""

import sys

from reconciler.cli.main import main

sys.exit(main())
