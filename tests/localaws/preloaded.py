"""All that a localaws imports: what `forks.py` lets its processes begin with."""

from localaws.server import imports_that_stay

with imports_that_stay():
    from localaws import additions, application, execution, web  # noqa: F401

    additions.modules()
