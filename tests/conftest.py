import os
import signal
from collections.abc import Generator, Iterator
from unittest import mock

import hypothesis
import pytest

from localaws.server import imports_that_stay

# Tests run beside each other: of two threads that share a core each waits busily for the other.
# Tests for which several threads matter ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# In the background a shell starts its commands without Ctrl-C, which what they start inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What `make test` was given is not what the commands under test were given.
for name in ("MAKELEVEL", "UV_PYTHON"):
    os.environ.pop(name, None)

# On a busy machine, how long an example took says nothing about it.
hypothesis.settings.register_profile("kennel", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("kennel")

LONGEST = (
    "test_stacks.py",
    "test_train.py",
    "test_least_privilege.py",
    "test_demo.py",
    "test_faults.py",
    "test_endpoints.py",
    "test_jobs.py",
    "test_launch_jobs.py",
    "test_modules.py",
    "test_tuning.py",
    "test_tune.py",
    "test_package.py",
    "test_upgrades.py",
    "test_iam.py",
    "test_stack_command.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that at the end no process waits for another."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import what stays in a quarter less of the time."""
    with imports_that_stay():
        return (yield)


@pytest.fixture(scope="module", autouse=True)
def module_environ() -> Iterator[None]:
    """Give the next module the same environment: a fixture may close this process's own."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def environ() -> Iterator[None]:
    """Give the next test the same environment: a command in this process may close its own."""
    with mock.patch.dict(os.environ):
        yield
