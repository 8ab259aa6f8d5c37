"""Places that cannot be written; a file in a folder's place stops root too."""

import os

from bad_input_table.case import INFER, SEGMENT, STORE, TRAIN, Case, nothing

GROUP = "Places that cannot be written"
FULL, ROOM = "Full disks", 6000
NO_ROOM = " cannot be written: …; make room, and the same command goes on where it can"


def _file(name: str):
    return lambda world: world.write(name, "kept from before")


def _pipe(world):
    os.mkfifo(world["out"])


def _links(world):
    world["out"].symlink_to(world["folder"])
    world["folder"].symlink_to(world["out"])


CASES = (
    Case(
        GROUP,
        "a file in the place of a store",
        _file("out"),
        STORE,
        "store: …out is a file; expected a folder for resized fields",
    ),
    Case(
        GROUP,
        "a file in the place of label maps",
        _file("out"),
        SEGMENT,
        "segment: …out is a file; expected a folder for label maps",
    ),
    Case(
        GROUP,
        "a file in the place of a run",
        _file("out"),
        TRAIN,
        "out: …out is a file; expected a folder for the run",
    ),
    Case(
        GROUP,
        "a named pipe in the place of a run",
        _pipe,
        TRAIN,
        "out: …out is a file; expected a folder for the run",
    ),
    Case(
        GROUP,
        "a device in the place of label maps",
        nothing,
        SEGMENT.replace("{out}", "/dev/null"),
        "segment: /dev/null is a file; expected a folder for label maps",
    ),
    Case(
        GROUP,
        "a file on the way to label maps",
        _file("file"),
        SEGMENT.replace("{out}", "{file}/maps"),
        "files: folder …maps cannot be made: Not a directory; name another folder",
    ),
    Case(
        GROUP,
        "symbolic links that lead to each other in the place of a submission",
        _links,
        INFER,
        "files: …out cannot be written: Too many levels of symbolic links; name another file",
    ),
    Case(
        GROUP,
        "a device that takes nothing in the place of a submission",
        nothing,
        INFER.replace("{out}", "/dev/full"),
        "files: /dev/full" + NO_ROOM.replace("…", "No space left on device"),
    ),
    Case(
        GROUP,
        "a file in the place of a submission's folder",
        _file("folder"),
        INFER.replace("{out}", "{folder}/sub.csv"),
        "files: …sub.csv cannot be written: …folder…; name another file",
    ),
    Case(
        GROUP,
        "a folder in the place of a submission",
        lambda w: w["out"].mkdir(),
        INFER,
        "files: …out cannot be written: it is a folder; name another file",
    ),
    Case(
        GROUP,
        "a file in the place of a picture's folder",
        _file("folder"),
        "picture {submission} {data} --out {folder}/a.png",
        "files: …a.png cannot be written: …; name another file",
    ),
    Case(
        GROUP,
        "a file in the place of simulated data",
        _file("out"),
        "simulate {out} --train 1 --test 1 --size 64 --workers 1",
        "simulate: …out is a file; expected a folder to write",
    ),
    Case(
        GROUP,
        "a file in the place of a report's folder",
        _file("folder"),
        "report {submission} --out {folder}/a.html",
        "files: …a.html cannot be written: …; name another file",
    ),
    Case(
        GROUP,
        "a file in the place of an ensemble's folder",
        _file("folder"),
        "tune {data} --members {member} --out {folder}/a.yaml --device cpu",
        "files: …a.yaml cannot be written: …; name another file",
    ),
    Case(
        GROUP,
        "a file in the place of pseudo labels",
        _file("out"),
        "pseudo-labels {data} --members {member} --out {out} --device cpu",
        "out: …out is a file; expected a folder for pseudo labels",
    ),
    Case(
        GROUP,
        "a file in the place of predicted label maps",
        _file("folder"),
        "predict {data} --members {member} --out {out} --label-maps {folder} --device cpu",
        "files: folder …folder cannot be made: File exists; name another folder",
    ),
    Case(
        GROUP,
        "a file in the place of a table's folder",
        _file("folder"),
        "subcategories {features} --labels {labels} --out {folder}/a.csv --k 1",
        "files: …a.csv cannot be written: …; name another file",
    ),
    Case(
        GROUP,
        "a file in the place of the folder of features",
        _file("folder"),
        "features {data} --member {member} --out {folder}/a.npz --device cpu",
        "files: …a.npz cannot be written: …; name another file",
    ),
    Case(
        GROUP,
        "a name that is too long for a file",
        lambda w: None,
        STORE.replace("{out}", "{out}/" + "x" * 300),
        "files: …field cannot be written: …: File name too long; name another file",
    ),
    Case(
        GROUP,
        "the folder of runs is a file",
        _file("folder"),
        "runs {folder}",
        "runs: …folder is a file; expected a folder with runs of hpa-kit train below it",
    ),
    Case(
        FULL, "no room for a store", nothing, STORE.replace("32", "64"), "files: …field" + NO_ROOM, room=ROOM
    ),
    Case(FULL, "no room for a checkpoint", nothing, TRAIN, "files: …safetensors" + NO_ROOM, room=ROOM),
    Case(FULL, "no room for a submission", nothing, INFER, "files: ….out.partial" + NO_ROOM, room=ROOM),
    Case(
        FULL,
        "no room for features",
        nothing,
        "features {data} --member {member} --out {out} --device cpu",
        "files: …out" + NO_ROOM,
        room=ROOM,
    ),
    Case(
        FULL,
        "no room for a picture",
        nothing,
        "picture {submission} {data} --out {out}.png",
        "files: …out.png" + NO_ROOM,
        room=ROOM,
    ),
    Case(
        FULL,
        "no room for members to upload",
        nothing,
        "kaggle weights {member} {out} --owner me",
        "files: …safetensors" + NO_ROOM,
        room=ROOM,
    ),
)
