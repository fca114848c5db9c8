"""Every transform, wrapper and recipe holds every law of `gradkit.testing`, or says why it cannot."""

import functools

import pytest
from entry import ENTRIES

from gradkit.testing import LAWS, Subject, check


@functools.lru_cache(maxsize=2)
def under_test(name: str) -> Subject:
    """The entry's transform, with what its laws share; kept while its laws are tried."""
    entry = ENTRIES[name]
    return Subject(entry.factory, entry.shapes)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ENTRIES)
def test_holds(name: str, law: str) -> None:
    excused = {k: v for k, v in ENTRIES[name].excused.items() if k == law}
    (row,) = check(under_test(name), laws=[law], excused=excused)
    assert row.outcome == ("excused" if excused else "pass"), row.reason


def test_excuses_name_laws() -> None:
    for entry in ENTRIES.values():
        assert set(entry.excused) <= set(LAWS), entry.name
