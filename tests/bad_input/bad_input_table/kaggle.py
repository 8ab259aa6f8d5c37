"""What goes to Kaggle."""

import zipfile

from bad_input_table.case import Case, nothing
from bad_input_table.world import World

GROUP = "Kaggle"
WEIGHTS = "kaggle weights {member} {out} --owner me"


def _wheel(name: str, content: bytes | None = None):
    """A wheel of that name; ``content`` in place of a zip."""

    def make(world: World) -> None:
        world["folder"].mkdir()
        path = world["folder"] / name
        if content is not None:
            path.write_bytes(content)
            return
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hpacellseg/__init__.py", "")
            archive.writestr("hpacellseg-1.dist-info/METADATA", "Name: hpacellseg\nRequires-Python: >=3.30\n")

    return make


def _bundle(name: str) -> str:
    return f"kaggle bundle {{out}} --owner me --hpacellseg {{folder}}/{name}"


FITS = "hpacellseg-1-py3-none-any.whl"
CASES = (
    Case(
        GROUP,
        "an owner that Kaggle does not take",
        nothing,
        "kaggle weights {member} {out} --owner a@b",
        "dataset-metadata.json: id 'a@b/hpa-kit-members': owner 'a@b' needs lower-case letters and "
        "digits with single - or _ between",
    ),
    Case(
        GROUP,
        "a source to attach that Kaggle does not take",
        nothing,
        "kaggle metadata --add me/a@b",
        "kaggle: --add 'me/a@b': slug 'a@b' needs lower-case letters and digits with single hyphens between; "
        "give owner/slug for a dataset, code/owner/slug for a notebook's output, or a model's address; "
        "nothing was written",
    ),
    Case(
        GROUP,
        "images of no split to fetch",
        nothing,
        "kaggle data {out} --images valid",
        "kaggle data: images are 'valid'; expected train, test or how many fields",
    ),
    Case(
        GROUP,
        "a damaged member to upload",
        lambda w: w.checkpoint(b"half"),
        WEIGHTS,
        "checkpoint: …best.safetensors is damaged or no safetensors file: …",
    ),
    Case(
        GROUP,
        "a file in the place of the folder to upload",
        lambda w: w.write("out", "x"),
        WEIGHTS,
        "files: …member.safetensors cannot be written: …out: File exists; name another file",
    ),
    Case(
        GROUP,
        "a wheel that is missing",
        nothing,
        "kaggle bundle {out} --owner me --hpacellseg {file}",
        "hpacellseg: …file is missing; expected its wheel, or a checkout of it",
    ),
    Case(
        GROUP,
        "a wheel that is no zip",
        _wheel(FITS, b"not a zip"),
        _bundle(FITS),
        "wheels: …hpacellseg-1-py3-none-any.whl is no wheel, or a damaged one; remove it and fetch again",
    ),
    Case(
        GROUP,
        "a wheel for another Python",
        _wheel("hpacellseg-1-cp39-cp39-any.whl"),
        _bundle("hpacellseg-1-cp39-cp39-any.whl"),
        "hpacellseg: hpacellseg-1-cp39-cp39-any.whl is for cp39-cp39-any; expected py3-none-any, or "
        "Python 3.12 on manylinux_2_28_x86_64; give another wheel or checkout",
    ),
    Case(
        GROUP,
        "a wheel that needs a later Python",
        _wheel(FITS),
        _bundle(FITS),
        "hpacellseg: hpacellseg-1-py3-none-any.whl needs Python >=3.30; Kaggle has 3.12; give another "
        "wheel or checkout",
    ),
    Case(
        GROUP,
        "the wheel of another project",
        _wheel("other-1-py3-none-any.whl"),
        _bundle("other-1-py3-none-any.whl"),
        "hpacellseg: other-1-py3-none-any.whl is the wheel of other; expected hpacellseg",
    ),
    Case(
        GROUP,
        "a wheel without a wheel's name",
        _wheel("hpacellseg.whl"),
        _bundle("hpacellseg.whl"),
        "wheels: …hpacellseg.whl is not named as a wheel; expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl",
    ),
    Case(
        GROUP,
        "metadata that are no JSON",
        lambda w: w.write("file", "{"),
        "kaggle metadata {file}",
        "…file: no JSON: …",
        1,
    ),
    Case(
        GROUP,
        "metadata that are a list",
        lambda w: w.write("file", "[]"),
        "kaggle metadata {file}",
        "…file: holds a list; expected names and values",
        1,
    ),
    Case(
        GROUP,
        "metadata in another encoding",
        lambda w: w.write("file", b"\xff\xfe"),
        "kaggle metadata {file}",
        "…file: no JSON: …",
        1,
    ),
    Case(
        GROUP,
        "metadata nested 100,000 deep",
        lambda w: w.write("file", "[" * 100_000),
        "kaggle metadata {file}",
        "…file: no JSON: …",
        1,
    ),
    Case(
        GROUP,
        "members to rehearse with that are not packed",
        nothing,
        "kaggle rehearse --out {out} --members-dataset {member}",
        "rehearse: …dataset-metadata.json: missing; pack it with `hpa-kit kaggle weights`",
    ),
    Case(
        GROUP,
        "cell networks to rehearse with that are none",
        nothing,
        "kaggle rehearse --out {out} --cells-dataset {member}",
        "rehearse: …member does not hold both published cell networks; pack them with "
        "`hpa-kit kaggle weights FOLDER OUT`",
    ),
    Case(
        GROUP,
        "data to rehearse with that lack a sample",
        lambda w: w["sample"].unlink(),
        "kaggle rehearse --out {out} --data {data}",
        "rehearse: …sample_submission.csv is missing; expected a folder as the competition's",
    ),
)
