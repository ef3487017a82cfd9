"""What the tests share: where real ECGs lie."""

import os
from pathlib import Path

import pytest

import ecglib  # noqa: F401  (before numpy, whose bits it settles)


@pytest.fixture(scope="session")
def real_data():
    """Folder with ptb-xl/, ludb/, omi-features/ and philips-xml/, named by ECGLIB_TEST_DATA."""
    folder = os.environ.get("ECGLIB_TEST_DATA")
    if not folder:
        pytest.skip(
            "needs real ECGs: set ECGLIB_TEST_DATA to a folder holding ptb-xl, ludb, omi-features, "
            "philips-xml"
        )
    return Path(folder)


def pytest_collection_modifyitems(items):
    """The smoke study first: it takes longest, and other workers do the rest meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")
