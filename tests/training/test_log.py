"""What a run says of itself is read back in the order in which it was said."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from hpa_kit.training.log import read_scalars


def test_the_last_of_many_event_files_of_one_second_counts(tmp_path: Path) -> None:
    for number in (10, 9):  # written in any order: their names say which came last
        writer = SummaryWriter(str(tmp_path / str(number)))
        writer.add_scalar("seconds", float(number), 1)
        writer.close()
        (event,) = (tmp_path / str(number)).iterdir()
        event.rename(tmp_path / f"events.out.tfevents.1700000000.host.77.{number}")
    assert read_scalars(tmp_path, "seconds") == {1: 10.0}
