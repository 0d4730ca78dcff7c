"""No cell of the table fails, and each error of its closed list is raised somewhere."""

import pytest

import table
from conftest import AGAIN


def assert_no_failures(cells):
    failed = [f"{c.call} of a {c.dtype} {c.container}, {c.matrix}: {c.failure}" for c in cells if c.failure]
    assert not failed, f"{len(failed)} of {len(cells)}:\n" + "\n".join(failed[:20])


@pytest.mark.skipif(AGAIN, reason="long; it ran before")
def test_in_memory(engine):
    cells = list(table.outcomes(slow=False))
    assert_no_failures(cells)
    raised = {refusal.words for cell in cells for refusal in cell.refusals}
    assert raised == {refusal.words for refusal in table.REFUSALS}


@pytest.mark.skipif(AGAIN, reason="long; it ran before")
def test_on_dask_and_on_disk():
    if not any(container.kind in table.SLOW for container in table.CONTAINERS.values()):
        pytest.skip("neither dask nor anndata is installed")
    assert_no_failures(list(table.outcomes(slow=True)))
