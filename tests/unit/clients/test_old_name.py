"""The package's former name, kept for one release."""

from __future__ import annotations

import importlib

import pytest

import tidegate


def test_the_old_name_warns_and_gives_the_same_objects() -> None:
    with pytest.warns(DeprecationWarning, match="now called tidegate") as told:
        old = importlib.import_module("tidegate_client")
    assert len(told) == 1
    assert all(getattr(old, name) is getattr(tidegate, name) for name in old.__all__)
