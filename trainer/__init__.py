"""From photos to a packaged model."""

import os

from inference.ctrl_c import answer_ctrl_c

# Must be set before torch loads OpenMP, whose threads wait for each other by spinning for
# milliseconds. Where another process or a container's CPU quota takes one of two cores away, that
# made training over ten times slower; spinning for microseconds costs 3 % where nothing does.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Torch takes seconds to load, before `trainer.errors.run_command` can say anything.
answer_ctrl_c(" before it began; what was there is as it was")
