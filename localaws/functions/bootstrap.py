"""Starts AWS's runtime interface client as /var/runtime/bootstrap.py does in Lambda.

It runs under the function's Python, which sees Lambda's packages and nothing of localaws.
"""

import os
import site
import sys

if __name__ == "__main__":
    code = os.environ["LAMBDA_TASK_ROOT"]
    sys.path[0] = code  # In place of this file's folder.
    # Lambda's packages come before the standard library, unless the function says what does.
    if "PYTHONPATH" not in os.environ:
        sys.path.insert(1, os.environ["LAMBDA_RUNTIME_DIR"])
        os.environ["PYTHONPATH"] = os.environ["LAMBDA_RUNTIME_DIR"]
    site.addsitedir(code)
    from awslambdaric.__main__ import main

    main([code, os.environ["_HANDLER"]])
