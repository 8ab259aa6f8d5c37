"""Fields in batches."""

import pytest

from hpa_kit.config import EnsembleSettings, PredictSettings
from hpa_kit.inference.results import Journal, Results, batch_sizes


@pytest.mark.parametrize("most", [1, 2, 8])
@pytest.mark.parametrize("fields", [0, 1, 2, 3, 8, 15, 16, 17, 100, 559])
def test_batches_are_small_at_both_ends_and_hold_every_field_once(fields, most) -> None:
    sizes = list(batch_sizes(fields, most))
    assert sum(sizes) == fields
    assert sizes[:1] == sizes[-1:] == [1] * (fields > 0)
    assert max(sizes, default=0) <= most
    assert len(sizes) <= fields / most + 2 * most.bit_length() + 1


def test_a_batch_with_a_field_to_do_is_done_whole_and_failed_ones_are_tried_alone(tmp_path) -> None:
    settings = PredictSettings(data=tmp_path, out=tmp_path / "out.csv", members=("run",))
    with Journal(folder=tmp_path) as journal:
        results = Results(
            "predict", "abcdefg", tmp_path, journal, settings, EnsembleSettings(members=("run",))
        )
        assert results.still_to_do(2) == [["a"], ["b", "c"], ["d", "e"], ["f"], ["g"]]
        for id in "abdef":
            journal.add(id, b"done")
        journal.add("d", b"", failed="why")
        assert results.still_to_do(2) == [["b", "c"], ["d"], ["g"]]
