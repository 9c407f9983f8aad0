"""`python -m tests.cluster`: say why no hosts can be made on this machine, and exit with 1."""

import sys

from tests.cluster.hosts import why_no_host, why_not

reason = why_not() or why_no_host()
if reason is not None:
    print(f"no cluster tests: {reason}")
sys.exit(reason is not None)
