"""HPA-Cell-Segmentation's own wheel goes into the bundle where the user points to it or to a checkout."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.wheels import hpacellseg_wheel

SETUP = """from setuptools import find_packages, setup
setup(name="hpacellseg", version="0.1.8", packages=find_packages(), install_requires=[{requires}])
"""


def make_checkout(folder: Path) -> Path:
    root = folder / "HPA-Cell-Segmentation"
    (root / "hpacellseg").mkdir(parents=True)
    (root / "hpacellseg" / "__init__.py").write_text("answer = 42\n")
    (root / "setup.py").write_text(SETUP.format(requires="'click>=7', 'zoo @ https://nowhere/zoo.zip'"))
    return root


def make_image(folder: Path) -> Path:
    path = folder / "kaggle.txt"
    path.write_text("numpy==2.0.2\nclick\nzoo==1.0\n")
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The name and the bytes of the wheel of another checkout of the same."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("built")
    return hpacellseg_wheel(make_checkout(folder), make_image(folder))


def make_wheel(folder: Path, name: str, metadata: str = "") -> Path:
    project, version = name.split("-")[:2]
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{project}/__init__.py", "")
        archive.writestr(f"{project}-{version}.dist-info/METADATA", f"Name: {project}\n{metadata}\n\n")
    return folder / name


def test_a_checkout_is_built_to_the_same_bytes_each_time_and_left_as_it_was(checkout, image, built):
    before = sorted(checkout.rglob("*"))
    assert built[0] == "hpacellseg-0.1.8-py3-none-any.whl"
    assert hpacellseg_wheel(checkout, image) == built
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o077, 0o600), pytest.param(0o002, 0o664, marks=pytest.mark.whole_table)]
)
def test_whose_machine_built_it_does_not_show_in_a_checkouts_wheel(checkout, image, built, umask, mode):
    before = os.umask(umask)
    try:
        for path in checkout.rglob("*.py"):
            path.chmod(mode)
        assert hpacellseg_wheel(checkout, image) == built
    finally:
        os.umask(before)


def test_a_wheel_is_taken_as_it_is(tmp_path, image):
    wheel = make_wheel(tmp_path, "hpacellseg-0.1.8-py3-none-any.whl")
    assert hpacellseg_wheel(wheel, image) == (wheel.name, wheel.read_bytes())


@pytest.mark.parametrize(
    ("name", "metadata", "said"),
    [
        ("other-1.0-py3-none-any.whl", "", "wheel of other"),
        ("hpacellseg-1.0-cp27-none-any.whl", "", "is for cp27-none-any"),
        ("hpacellseg-1.0-py3-none-any.whl", "Requires-Dist: numpy<2", "needs numpy<2"),
    ],
)
def test_another_projects_wheel_and_one_that_does_not_fit_are_refused(tmp_path, image, name, metadata, said):
    with pytest.raises(InputError, match=said):
        hpacellseg_wheel(make_wheel(tmp_path, name, metadata), image)


def test_a_folder_that_is_no_checkout_and_one_that_cannot_be_built_are_one_line(tmp_path, checkout, image):
    with pytest.raises(InputError, match="no checkout"):
        hpacellseg_wheel(tmp_path, image)
    with pytest.raises(InputError, match="missing"):
        hpacellseg_wheel(tmp_path / "gone.whl", image)
    (checkout / "setup.py").write_text("raise SystemExit('broken')\n")
    with pytest.raises(InputError, match="cannot be built") as error:
        hpacellseg_wheel(checkout, image)
    assert "\n" not in str(error.value)


@pytest.fixture
def kit(tmp_path: Path, image: Path) -> Path:
    """A checkout of the kit, as far as a bundle needs one."""
    root = tmp_path / "kit"
    for folder in ("hpa_kit", "wheels", "constraints"):
        (root / folder).mkdir(parents=True)
    for file in ("hpa_kit/__init__.py", "wheels/requirements.txt", "LICENSE"):
        (root / file).touch()
    image.rename(root / "constraints" / "kaggle.txt")
    return root


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    wanted = ("click>=7", "pytorch_zoo @ https://nowhere/zoo.zip", "shapely")
    metadata = "\n".join(f"Requires-Dist: {one}" for one in wanted)
    return make_wheel(tmp_path, "hpacellseg-0.1.8-py3-none-any.whl", metadata)


def wheels_in(bundle: Path) -> list[str]:
    with zipfile.ZipFile(bundle) as archive:
        return [name for name in archive.namelist() if name.endswith(".whl")]


def test_the_bundle_carries_it_lists_it_and_says_what_it_asks_for_beyond_the_image(
    kit, wheel, tmp_path, capsys
):
    bundle = build_bundle(tmp_path / "dist", source=kit, hpacellseg=wheel)
    printed = capsys.readouterr().out
    assert "asks for shapely, which neither" in printed
    assert "asks for pytorch-zoo, but works without: its networks are loaded without it" in printed
    with zipfile.ZipFile(bundle.path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert manifest["files"][f"wheels/{wheel.name}"] == digest
    assert manifest["wheels"] == {"hpacellseg": "0.1.8"}
    outer = json.loads((tmp_path / "dist" / "hpa-kit-manifest.json").read_text())
    assert outer == manifest


def test_a_later_build_keeps_the_wheel_and_says_so_and_how_to_be_rid_of_it(kit, wheel, tmp_path, capsys):
    dist = tmp_path / "dist"
    before = build_bundle(dist, source=kit, hpacellseg=wheel).path.read_bytes()
    wheel.unlink()
    assert build_bundle(dist, source=kit).path.read_bytes() == before
    said = f"{wheel.name} is kept from the build before; without it: rm {dist}/hpa-kit.zip"
    assert said in capsys.readouterr().out
    (dist / "hpa-kit.zip").unlink()
    assert wheels_in(build_bundle(dist, source=kit).path) == []
    assert "kept" not in capsys.readouterr().out


def test_another_wheel_takes_the_place_of_the_one_before(kit, wheel, tmp_path):
    build_bundle(tmp_path / "dist", source=kit, hpacellseg=wheel)
    newer = make_wheel(tmp_path, "hpacellseg-0.2-py3-none-any.whl")
    bundle = build_bundle(tmp_path / "dist", source=kit, hpacellseg=newer)
    assert wheels_in(bundle.path) == [f"wheels/{newer.name}"]


@pytest.mark.parametrize("damage", ["cut", "changed", "no manifest", "no longer fit"])
def test_a_wheel_that_cannot_be_kept_is_said_to_be_dropped(kit, wheel, tmp_path, capsys, damage):
    path = build_bundle(tmp_path / "dist", source=kit, hpacellseg=wheel).path
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content.replace(b"Name: hpacellseg", b"Name: hpacellsag"))
    elif damage == "no manifest":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"wheels/{wheel.name}", "")
    else:
        (kit / "constraints" / "kaggle.txt").write_text("click==6\n")
    capsys.readouterr()
    assert wheels_in(build_bundle(tmp_path / "dist", source=kit).path) == []
    printed = capsys.readouterr().out
    assert ("is dropped" if damage == "no longer fit" else "is not kept") in printed
