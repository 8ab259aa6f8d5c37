"""Wheels are for Kaggle's Python, pinned, and what they say they are."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import parse_wheel
from hpa_kit.kaggle.publish.wheels import (
    fetch_wheels,
    find_misfit,
    find_unmet,
    read_image,
    read_pins,
    verified_wheels,
)


def make_wheel(folder: Path, name: str = "tiny_thing-1.0-py3-none-any.whl", metadata: str = "") -> Path:
    project, version = name.split("-")[:2]
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{project}/__init__.py", "answer = 42\n")
        archive.writestr(f"{project}-{version}.dist-info/METADATA", f"Name: {project}\n{metadata}\n\ntext\n")
    return folder / name


def pin(folder: Path, *wheels: Path) -> None:
    lines = [
        "{}=={} \\\n    --hash=sha256:{}  # why".format(
            *wheel.name.split("-")[:2], hashlib.sha256(wheel.read_bytes()).hexdigest()
        )
        for wheel in wheels
    ]
    (folder / "requirements.txt").write_text("# pins\n\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "tags",
    [
        "py3-none-any",
        "py2.py3-none-any",
        "py311-none-any",
        "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp38-abi3-manylinux1_x86_64",
        "cp312-none-linux_x86_64",
    ],
)
def test_wheels_that_run_on_kaggle_are_taken(tmp_path, tags):
    assert find_misfit(make_wheel(tmp_path, f"some_thing-1.0-{tags}.whl"), {}) is None


@pytest.mark.parametrize(
    "tags",
    [
        "py2-none-any",
        "py313-none-any",
        "cp311-cp311-manylinux2014_x86_64",
        "cp313-cp313-manylinux2014_x86_64",
        "cp313-abi3-manylinux2014_x86_64",
        "cp311-none-any",
        "pp310-pypy310_pp73-manylinux2014_x86_64",
        "cp312-cp312-win_amd64",
        "cp312-cp312-macosx_11_0_arm64",
        "cp312-cp312-manylinux2014_aarch64",
        "cp312-cp312-musllinux_1_2_x86_64",
        "cp312-cp312-manylinux_2_39_x86_64",
    ],
)
def test_wheels_of_another_python_or_platform_are_refused(tmp_path, tags):
    misfit = find_misfit(make_wheel(tmp_path, f"some_thing-1.0-{tags}.whl"), {})
    assert misfit is not None
    assert f"is for {tags}; expected" in misfit


def test_a_build_number_and_a_local_version_are_read():
    wheel = parse_wheel("wheels/Some_Thing-1.0+cu128-2-py3-none-any.whl")
    assert (wheel.project, wheel.version) == ("some-thing", "1.0+cu128")
    with pytest.raises(InputError, match="not named as a wheel"):
        parse_wheel("some_thing.whl")


def test_pinned_wheels_that_are_there_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was called"))
    wheel = make_wheel(tmp_path)
    pin(tmp_path, wheel)
    fetch_wheels(tmp_path)
    assert verified_wheels(tmp_path) == [wheel]


def test_a_wheel_that_cannot_be_fetched_says_where_to_put_it(tmp_path, monkeypatch):
    pin(tmp_path, make_wheel(tmp_path))
    (tmp_path / "tiny_thing-1.0-py3-none-any.whl").unlink()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match=f"tiny-thing could not be fetched .* put the wheel into {tmp_path}"):
        fetch_wheels(tmp_path)


def test_a_changed_an_unpinned_and_a_missing_wheel_are_refused(tmp_path):
    wheel = make_wheel(tmp_path)
    pin(tmp_path, wheel)
    other = make_wheel(tmp_path, "other-1.0-py3-none-any.whl")
    with pytest.raises(InputError, match="other.*not pinned"):
        verified_wheels(tmp_path)
    other.unlink()
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(InputError, match="sha256"):
        verified_wheels(tmp_path)
    wheel.unlink()
    with pytest.raises(InputError, match="tiny-thing: no wheel"):
        verified_wheels(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [
        "Requires-Python: >=3.13",
        "Requires-Python: >=3.8,<3.12",
        "Requires-Dist: numpy<2",
        "Requires-Dist: NumPy (<2,>=1.20)",
        "Requires-Dist: numpy[extra] ~=1.26",
        'Requires-Dist: numpy>=2.3;python_version>="3.9"',
        'Requires-Dist: numpy>=2.3; python_version >= "3.9"',
        'Requires-Dist: numpy (<2) ; sys_platform == "linux" and extra != "gpu"',
    ],
)
def test_a_wheel_for_another_numpy_or_python_is_refused(tmp_path, metadata):
    image = tmp_path / "image.txt"
    image.write_text('# image\nnumpy==2.0.2; python_version < "3.13"\ntqdm==4.67.*\n')
    pin(tmp_path, make_wheel(tmp_path, metadata=metadata))
    with pytest.raises(InputError, match="needs"):
        verified_wheels(tmp_path, image)


def test_requirements_that_the_image_meets_or_that_are_extras_are_no_fault(tmp_path):
    image = tmp_path / "image.txt"
    image.write_text("numpy==2.0.2\nscikit-learn==1.6.1\n")
    metadata = "Requires-Python: >=3.8\nRequires-Dist: numpy>=1.20,!=2.0.1\nRequires-Dist: scikit_learn\n"
    metadata += 'Requires-Dist: numpy<2; extra == "old"\nRequires-Dist: unheard-of>=9\n'
    metadata += 'Requires-Dist: numpy<2; python_version < "3.12"\n'
    pin(tmp_path, make_wheel(tmp_path, metadata=metadata))
    assert len(verified_wheels(tmp_path, image)) == 1


@pytest.mark.parametrize(
    ("marker", "answer"),
    [
        ('python_version >= "3.9"', True),
        ('python_version < "3.10"', False),
        ('"3.13" > python_version', True),
        ("python_full_version < '3.12.0'", False),
        ('(os_name == "nt" or platform_machine in "x86_64 AMD64") and implementation_name != "pypy"', True),
        ('platform_system == "Windows" or sys_platform not in "linux"', False),
        ('extra == "test"', False),
    ],
)
def test_a_marker_is_read_as_kaggles_image_meets_it(tmp_path, marker, answer):
    wheel = make_wheel(tmp_path, metadata=f"Requires-Dist: unheard-of; {marker}")
    assert find_unmet(wheel, wheel.read_bytes(), ()) == ["unheard-of"] * answer


def test_a_requirement_that_cannot_be_read_names_its_wheel(tmp_path):
    image = tmp_path / "image.txt"
    image.write_text("numpy==2.0.2\n")
    pin(tmp_path, make_wheel(tmp_path, metadata="Requires-Dist: numpy>=1,newest"))
    with pytest.raises(InputError, match=r"newest.*tiny_thing-1\.0"):
        verified_wheels(tmp_path, image)


@pytest.mark.parametrize("line", ["numpy>=2", "numpy==2.0.2", "numpy==2.0.2 --hash=md5:00", "-r other.txt"])
def test_a_pin_without_version_or_hash_is_named(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(line + "\n")
    with pytest.raises(InputError, match="expected NAME==VERSION"):
        read_pins(tmp_path / "requirements.txt")


def test_the_images_packages_are_read_with_their_versions_where_they_are_pinned(tmp_path):
    (tmp_path / "c.txt").write_text('A_b==1.*\nc==2.0 ; python_version < "3.13"\n# d==1\ne>=1\nf\n')
    assert read_image(tmp_path / "c.txt") == {"a-b": "1", "c": "2.0", "e": None, "f": None}


def test_a_python_without_packaging_holds_wheels_against_their_pins_only(tmp_path, monkeypatch):
    image = tmp_path / "image.txt"
    image.write_text("numpy==2.0.2\n")
    wheel = make_wheel(tmp_path, "tiny_thing-1.0-cp27-none-any.whl", "Requires-Dist: numpy<2")
    pin(tmp_path, wheel)
    monkeypatch.setattr("hpa_kit.kaggle.publish.wheels.comparison_missing", lambda: True)
    assert verified_wheels(tmp_path, image) == [wheel]
    wheel.write_bytes(b"PK")
    with pytest.raises(InputError, match="sha256"):
        verified_wheels(tmp_path, image)
