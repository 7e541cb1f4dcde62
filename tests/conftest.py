"""What all tests share: where real scans lie, and how long a property may take."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("house")


@pytest.fixture(scope="session")
def ctdata() -> Path:
    """Folder with real CT, radiographs and hostile files; tests that need it skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "ctdata"
    folder = Path(os.environ.get("TOMOGEN_CTDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set TOMOGEN_CTDATA")
    return folder
