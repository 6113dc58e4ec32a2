"""``python -m jobcontainer``: the command line."""

import sys

from jobcontainer.cli import main

sys.exit(main())
