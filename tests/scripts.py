"""Scripts that tests write, for whatever path the environment's Python has."""

import shlex
import sys

PYTHON = shlex.quote(sys.executable)
"""The Python that runs the tests, as a word of the shell."""

SHEBANG = f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"\n' '''\n"
"""Beginning of a program in Python: a first line of its own can hold no space."""
