"""A kind of label that only the tests know, registered while contract tests run."""

from collections.abc import Iterator

import pytest

from tests.contracts.data_sets import REGISTERED


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for registry, lines in REGISTERED:
            for name, where in lines.items():
                patch.setitem(registry, name, where)
        yield
