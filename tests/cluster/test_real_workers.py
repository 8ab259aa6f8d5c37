"""Workers as processes of their own: the same results as on one machine, whatever dies meanwhile."""

import logging

import numpy as np
import pandas as pd
import pytest

from hpa_kit.cells import read_label_maps
from hpa_kit.cells.segment import segment
from hpa_kit.cluster import Item
from hpa_kit.config import FeaturesSettings, PredictSettings, PseudoLabelSettings, SegmentSettings
from hpa_kit.data import read_field
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, predict
from hpa_kit.inference.made_fields import FieldJob
from hpa_kit.inference.prediction import Made
from hpa_kit.inference.stream import MAX_BROKEN
from hpa_kit.pseudo_labels import make_pseudo_labels
from hpa_kit.scoring import scoring_of
from hpa_kit.training.cell_features_file import read_cell_features
from hpa_kit.training.features import make_features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def asked(fields, member, tmp_path):
    """Settings of ``predict``."""

    def make(where: str, **changes) -> PredictSettings:
        values = {
            "data": fields.root, "members": (member,), "out": tmp_path / where / "cells.parquet",
            "views": "none", "map_size": 64, "batch": 2, "device": "cpu", "segmenter": "deadly",
        }  # fmt: skip
        return PredictSettings(**(values | changes))

    return make


def same_label_maps(fields, one, other, split="test") -> None:
    for id in fields.ids:
        field = read_field(fields.root / split, id)
        pairs = zip(read_label_maps(one, id, field), read_label_maps(other, id, field), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)


def same_rows(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Rows of fields that were in batches of other sizes: processors round these otherwise."""
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-6)


def test_a_table_has_the_same_rows_though_a_worker_dies_midway(fields, asked, cluster, patience, tmp_path):
    expected = pd.read_parquet(predict(asked("here")))
    fields.seen()
    fields.rule("once-4")
    out = predict(asked("there", cluster=cluster.has(2, patience)))
    assert out.is_dir()
    found = pd.read_parquet(out)
    same_rows(found, expected)
    assert found["ID"].is_monotonic_increasing
    same_label_maps(fields, tmp_path / "here/cells_label_maps", tmp_path / "there/cells_label_maps")
    # All that was done twice is the dead worker's batch, and one that it had not handed over yet.
    twice = fields.seen()
    assert 4 in twice and len(twice) <= len(fields.ids) + 2 * 2
    assert not list((tmp_path / "there").glob(".*"))
    # Where parts lie, one machine writes parts too.
    pd.testing.assert_frame_equal(pd.read_parquet(predict(asked("there"))), expected, check_exact=True)
    assert out.is_dir()


def test_a_table_of_one_machine_is_no_cluster_s_and_nothing_is_left_beside_it(asked):
    out = asked("here").out
    out.parent.mkdir()
    out.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"cells.parquet is no folder; .* move it away"):
        predict(asked("here", cluster="local:1"))
    assert list(out.parent.iterdir()) == [out]


def test_a_field_that_ends_its_worker_costs_itself(fields, asked, cluster, patience, caplog):
    fields.rule("always-5")
    (fields.root / "test" / "f2_green.png").write_bytes(b"no image")
    address = cluster.has(3, patience)
    with caplog.at_level(logging.WARNING):
        found = pd.read_parquet(predict(asked("there", cluster=address)))
    assert "f5 has no rows: 1 workers ended at it" in caplog.text
    assert "f2 has no rows: fields: " in caplog.text
    assert set(found["ID"]) == set(fields.ids) - {"f2", "f5"}


def test_after_the_scheduler_is_gone_the_same_command_does_what_is_lacking(
    fields, asked, start_cluster, cluster, patience, tmp_path
):
    expected = predict(asked("here", out=tmp_path / "here.csv"))
    out = tmp_path / "there.csv"
    other = start_cluster()
    address = other.has(1, patience)
    fields.rule("scheduler-6", str(other.scheduler))
    with pytest.raises(InputError, match="the scheduler of .* is gone; what is done is kept"):
        predict(asked("there", out=out, cluster=address))
    done = set(pd.read_csv(out)["ID"])
    assert 0 < len(done) < len(fields.ids)
    fields.seen()
    predict(asked("there", out=out, cluster=cluster.has(2, patience)))
    same_rows(pd.read_csv(out), pd.read_csv(expected))
    assert not done & {f"f{number}" for number in fields.seen()}


def test_segment_pseudo_labels_and_features_write_what_they_write_on_one_machine(
    fields, member, crop_member, cluster, patience, tmp_path
):
    address = cluster.has(2, patience)
    maps = {}
    for where in (None, address):
        out = tmp_path / ("here" if where is None else "there")
        maps[where] = segment(
            SegmentSettings(
                data=fields.root, out=out / "maps", segmenter="deadly", split="train", batch=2, cluster=where
            )
        )
        labels = PseudoLabelSettings(
            data=fields.root, out=out / "labels", members=(member,), segmenter="deadly", map_size=64, batch=2,
            views="none", device="cpu", cluster=where,
        )  # fmt: skip
        make_pseudo_labels(labels)
        make_features(
            FeaturesSettings(
                data=fields.root, out=out / "f.npz", member=crop_member, cells=True, masks=maps[None],
                device="cpu", cluster=where,
            )
        )  # fmt: skip
    one, other = tmp_path / "here", tmp_path / "there"
    same_label_maps(fields, one / "maps", other / "maps", "train")
    same_label_maps(fields, one / "labels/masks", other / "labels/masks", "train")
    for name in ("cell_scores.csv", "fields.csv", "made_from.txt"):
        assert (one / "labels" / name).read_bytes() == (other / "labels" / name).read_bytes()
    here, there = read_cell_features(one / "f.npz"), read_cell_features(other / "f.npz")
    assert here.ids == there.ids and here.stamps == there.stamps and here.source == there.source
    assert np.array_equal(here.counts, there.counts) and np.array_equal(here.values, there.values)


def test_a_worker_whose_device_is_broken_does_no_more_batches(fields, asked, monkeypatch):
    def broken(self, inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Ensemble, "predict", broken)
    settings = asked("there")
    ensemble = settings.of_ensemble()
    job = FieldJob(
        "predict", fields.root / "test", settings, ensemble, scoring_of(ensemble),
        details=lambda id, found: None,
        made=lambda prediction, more: Made(prediction.id, prediction.failure, {}),
    )  # fmt: skip
    work = job.load(1)
    for id in fields.ids[: MAX_BROKEN - 1]:
        ((_, made),) = work([Item(id)])
        assert "illegal memory access" in made.result.reason
    with pytest.raises(InputError, match="cpu failed on 3 batches in a row"):
        dict(work([Item("f8")]))
