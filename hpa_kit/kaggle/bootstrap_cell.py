"""The first cell of both notebooks: the kit is found among what is attached, and made ready.

It stands here once: ``make sync`` puts what is below ``# %%`` into the notebooks.
"""

inputs = "/kaggle/input"  # the notebooks' own parameter

# %%
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

started = time.time()
MARK = "hpa_kit/kaggle/"


def places(inputs: str) -> Iterator[Path]:
    """Every folder and zip under inputs, the shallowest first; folders of images are not opened."""
    level = [Path(inputs)]
    for _ in range(8):
        yield from level
        inside = [place for place in level if place.is_dir() and place.name not in ("train", "test")]
        entries = [entry for folder in inside for entry in os.scandir(folder)]
        level = sorted(Path(e.path) for e in entries if e.is_dir() or e.name.lower().endswith(".zip"))


def kit_in(place: Path) -> Path | None:
    """The folder of the kit that a folder, or a zip, holds; None where it holds none."""
    if not place.is_file():
        return place if (place / MARK).is_dir() else None
    with zipfile.ZipFile(place) as archive:
        inside = [name for name in archive.namelist() if f"/{MARK}" in f"/{name}"]
        if min((entry.header_offset for entry in archive.filelist), default=0):  # it is a wheel's, inside
            raise zipfile.BadZipFile("cut short")
        if not inside:
            return None
        unpacked = Path(tempfile.mkdtemp(prefix="hpa-kit-"))
        archive.extractall(unpacked)
        return unpacked / min(inside, key=len).partition(MARK)[0]


def build_of(kit: Path) -> str:
    """The build of a kit; an error where a file is not as its manifest says."""
    files = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))["files"]
    for name, expected in files.items():
        path, wheel = kit / name, "-".join(Path(name).name.split("-")[:2])
        unpacked = not path.is_file() and any(kit.glob(f"wheels/**/{wheel}.dist-info"))  # a wheel, by Kaggle
        if not unpacked and sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{name} is not as it was built")
    return sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()[:12]


def find_kit(inputs: str) -> Path:
    """The kit under inputs that is as it was built; where none is attached, the checkout around here."""
    builds: dict[str, tuple[Path, Path]] = {}
    kits, said = list[Path](), ""
    for place in places(inputs):
        try:
            kit = kit_in(place)
            kits += [kit] if kit else []
            if kit:
                builds.setdefault(build_of(kit), (place, kit))
        except Exception as error:  # whatever it is, this one is not as it was built
            said += f"{place} is damaged ({error}): if it is the kit, upload the bundle again; "
    if len(builds) > 1:
        found = ", ".join(f"build {build} in {place}" for build, (place, _) in builds.items())
        detach = "detach all but one (hpa-kit kaggle metadata --remove OWNER/SLUG) and push again"
        raise ValueError(f"several builds of hpa_kit are attached: {found}; {detach}")
    around = [folder for folder in (Path.cwd(), *Path.cwd().parents) if kit_in(folder)]
    kits = [kit for _, kit in builds.values()] + kits + around
    if not kits:
        said += f"hpa_kit is neither under {inputs} nor beside this notebook; attach its dataset"
        raise FileNotFoundError(said)
    print(said, end="\n" if said else "")
    return kits[0]


if __name__ == "__main__":  # as in a notebook
    sys.path.insert(0, str(find_kit(inputs)))
    from hpa_kit import kaggle

    kaggle.bootstrap()
