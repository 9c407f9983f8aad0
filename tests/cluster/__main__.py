"""`python -m tests.cluster`: exit with 1 and a reason if this machine cannot create hosts."""

import sys

from tests.cluster.hosts import host_failure, missing_requirement

reason = missing_requirement() or host_failure()
if reason is not None:
    print(f"cluster tests skipped: {reason}")
sys.exit(reason is not None)
