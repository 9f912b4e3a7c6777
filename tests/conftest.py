import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest and is mostly waiting, so that all else is done meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_stacks.py")
