"""`python -m ipvsproxy`."""

import sys

from ipvsproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
