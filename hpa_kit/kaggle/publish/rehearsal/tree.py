"""A copy of Kaggle's tree: inputs in every form that uploads take, read-only, and a working folder."""

import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpa_kit.config import SimulateSettings, make_settings
from hpa_kit.data.simulate import simulate
from hpa_kit.errors import InputError
from hpa_kit.kaggle.mounts import COMPETITION

CLASSES = (0, 1, 2, 7, 13, 14)
OWNER = "rehearsal"


class Tree:
    """``input/`` and ``working/`` of a session.

    Args:
        root: folder for both; what is in it goes.
    """

    def __init__(self, root: Path) -> None:
        root = root.absolute()
        self.inputs, self.working = root / "input", root / "working"
        self.competition = self.inputs / "competitions" / COMPETITION
        _remove(root)
        self.inputs.mkdir(parents=True)

    def new_session(self) -> None:
        """Empty the working folder, as each session finds it."""
        _remove(self.working)
        self.working.mkdir()

    def attach(self, source: Path, mount: str) -> Path:
        """Copy a folder or file to where Kaggle would mount it; what is there goes."""
        target = self.inputs / mount
        _remove(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir()
            shutil.copy(source, target)
        return target

    def attach_kit(self, bundle: Path, form: str) -> Path:
        """Mount the kit's zip in one of the forms that Kaggle makes of it.

        Args:
            bundle: the zip.
            form: ``zip`` as it was uploaded, ``unpacked``, or ``deeper``: in a folder more, and the wheels
                unpacked too.

        Returns:
            The folder that it should be found in.
        """
        for mount in ("hpa-kit", f"datasets/{OWNER}/hpa-kit"):
            _remove(self.inputs / mount)
        if form == "zip":
            return self.attach(bundle, "hpa-kit")
        folder = self.inputs / ("hpa-kit/hpa-kit" if form == "deeper" else f"datasets/{OWNER}/hpa-kit")
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(folder)
        for wheel in (folder / "wheels").glob("*.whl") if form == "deeper" else ():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(wheel.with_suffix(""))
            wheel.unlink()
        return folder

    def attach_competition(self, simulated: Path, splits: tuple[str, ...] = ("train", "test")) -> None:
        """Mount a simulated competition, or its test set in place of the one that is there."""
        tables = {"train": "train.csv", "test": "sample_submission.csv"}
        self.competition.mkdir(parents=True, exist_ok=True)
        for split in splits:
            _remove(self.competition / split)
            shutil.copytree(simulated / split, self.competition / split)
            shutil.copy(simulated / tables[split], self.competition)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nobody write to the inputs within the block."""
        paths = [self.inputs, *self.inputs.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            yield
        finally:
            _make_writable(self.inputs)


def simulated(out: Path, train: int, test: int, size: int) -> tuple[Path, Path]:
    """Simulate a competition with a public test set, and one with a hidden one: more fields, other sizes."""
    common = {"classes": CLASSES, "workers": 1, "size": size}
    public = {"out": out / "public", "train": train, "test": test, "seed": 1}
    hidden = {"out": out / "hidden", "train": 0, "test": test + 2, "seed": 2}
    sizes = {"max_size": size * 2, "square": False}
    return (
        simulate(make_settings(SimulateSettings, common, public)),
        simulate(make_settings(SimulateSettings, common, hidden, sizes)),
    )


def damage(folder: Path) -> str:
    """Cut a field's blue image in half, as a broken transfer does; its ID.

    Raises:
        InputError: fewer than two fields have one, so that none would be left whole.
    """
    blue = sorted(path for path in folder.iterdir() if path.stem.endswith("_blue"))
    if len(blue) < 2:
        raise InputError(f"rehearsal: {folder} has {len(blue)} blue images; expected 2 or more fields")
    content = blue[1].read_bytes()
    blue[1].write_bytes(content[: len(content) // 2])
    return blue[1].stem.removesuffix("_blue")


def _remove(path: Path) -> None:
    if path.is_dir():
        _make_writable(path)
        shutil.rmtree(path)


def _make_writable(folder: Path) -> None:
    # From the top down: what is inside a folder that may not be entered cannot be seen.
    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            _make_writable(path)
        else:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
