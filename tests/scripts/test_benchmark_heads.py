import pytest

from scripts.benchmark_heads import cases


@pytest.mark.parametrize(
    ("index", "heads", "batch_size", "hidden_units"), [(0, 100, 256, ()), (1, 100, 16, ()), (2, 20, 256, (64,))]
)
def test_the_compared_heads_differ_and_never_stop_early(index, heads, batch_size, hidden_units):
    specs = cases()[index].specs
    assert len(set(specs)) == len(specs) == heads
    assert {(spec.batch_size, spec.hidden_units) for spec in specs} == {(batch_size, hidden_units)}
    assert all(spec.patience_epochs == spec.epochs for spec in specs)
