"""What a test needs and this machine lacks."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

CI = os.environ.get("CI") == "true"


def lacking(why: str) -> NoReturn:
    """Skips the test, and says why; with CI=true it fails: what can be installed has to be there."""
    (pytest.fail if CI else pytest.skip)(why)
