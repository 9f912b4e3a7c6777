from pathlib import Path

import pytest

from lambda_src.build import ARCHITECTURES, build


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The function's real zips by architecture."""
    folder = tmp_path_factory.mktemp("lambda")
    return {architecture: build(folder, architecture) for architecture in ARCHITECTURES}


@pytest.fixture
def package(packages: dict[str, Path]) -> Path:
    """One of them, which runs here too: its native code is optional."""
    return packages["x86_64"]
