"""From photos to a packaged model."""

import os

# Must be set before torch loads OpenMP. Threads that wait for each other by spinning are the
# default; where another process, or a container's CPU quota, takes one core away, that made
# training on 2 cores over ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
