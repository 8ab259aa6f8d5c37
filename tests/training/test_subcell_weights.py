"""SubCell's published files are read safely, told apart, and become a member with a card."""

import hashlib
import logging
import os
import pickle

import pytest
import torch
import yaml
from subcell import classifier, encoder, write_files

from hpa_kit.cli import main
from hpa_kit.errors import InputError
from hpa_kit.models import load_subcell
from hpa_kit.training import settings_of
from hpa_kit.training.cards import card_of
from hpa_kit.training.learnt_fields import out_of_fold_members
from hpa_kit.training.subcell_weights import classifier_weights, convert_subcell, encoder_weights


class Hostile:
    """A pickle of this makes a file when something runs it."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files", "rbg")


def test_the_command_writes_a_member_whose_card_tells_what_it_was_made_from(
    files, tmp_path, capsys, caplog
) -> None:
    out, seen = tmp_path / "out", tmp_path / "seen.csv"
    seen.write_text("ID,Label\none,0\ntwo,3\none,0\n", encoding="utf-8")
    options = ["--channels", "rbg", "--licence", "MIT", "--seen", str(seen), "--crop", "896"]
    assert main(["weights", "convert", *map(str, files), str(out), *options]) == 0
    assert capsys.readouterr().out == f"member: {out}\n"
    card = yaml.safe_load((out / "card.yaml").read_text())
    assert card == card_of(out).model_dump(mode="json")
    assert card["licence"] == "MIT" and card["seen_fields"] == 2 and "SubCell rbg" in card["network"]
    for source, path in zip(card["sources"], files, strict=True):
        assert source == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    settings = settings_of(out)
    assert (settings.subcell, settings.crops.side, settings.in_channels) == ("rbg", 896, 3)
    assert len(load_subcell(out).classifiers) == 2
    fresh = out_of_fold_members(["one", "three"], [out], "tune")
    assert fresh == {"one": (), "three": (0,)}
    # Written again without a table, every field counts as seen.
    convert_subcell(files[0], files[1:], out, channels="rbg")
    assert out_of_fold_members(["three"], [out], "tune") == {"three": ()}
    assert "counts as having learnt from every field" in caplog.text


def test_weights_of_three_channels_are_told_by_names_or_by_the_user(files, tmp_path, caplog) -> None:
    encoder_file, *classifiers = files
    untold = convert_subcell(encoder_file, classifiers, tmp_path / "untold")
    assert settings_of(untold).subcell == "rbg"
    assert "nothing tells which; taken for rbg (microtubules, nucleus, protein)" in caplog.text
    for variant in ("rbg", "ybg"):
        with caplog.at_level(logging.INFO):
            out = convert_subcell(encoder_file, classifiers, tmp_path / f"subcell-{variant}")
        assert settings_of(out).subcell == variant and f"variant {variant}, as" in caplog.text
    moved = tmp_path / "models" / "ybg" / "vit" / "encoder.pth"
    moved.parent.mkdir(parents=True)
    encoder_file.rename(moved)
    assert settings_of(convert_subcell(moved, classifiers, tmp_path / "out")).subcell == "ybg"
    with pytest.raises(InputError, match="channels bg, but .* reads 3: rbg or ybg"):
        convert_subcell(moved, classifiers, tmp_path / "other", channels="bg")
    with pytest.raises(InputError, match="holds SubCell ybg; give SubCell rbg a folder of its own"):
        convert_subcell(moved, classifiers, tmp_path / "out", channels="rbg")


def test_a_trained_member_is_not_written_over(files, member) -> None:
    with pytest.raises(InputError, match="holds test_resnet"):
        convert_subcell(files[0], files[1:], member, channels="rbg")


@pytest.fixture
def broken(tmp_path):
    """Writes a file of changed weights."""

    def write(weights, **changes):
        changed = {**weights, **{key.replace("__", "."): value for key, value in changes.items()}}
        torch.save({k: v for k, v in changed.items() if v is not None}, tmp_path / "broken.pth")
        return tmp_path / "broken.pth"

    return write


def test_what_does_not_fit_is_one_line_that_names_it(broken, files, tmp_path) -> None:
    norm, first = "encoder__encoder__layer__1__layernorm_after__bias", "encoder__embeddings__cls_token"
    whole = encoder("rbg")
    for path, said in [
        (lambda: broken(whole, **{norm: None}), "missing: encoder.encoder.layer.1.layernorm_after.bias"),
        (
            lambda: broken(whole, **{norm: torch.zeros(64)}),
            r"of another shape: .*\(64,\) instead of \(128,\)",
        ),
        (lambda: broken(whole, **{first: None}), "is no whole encoder of SubCell; missing"),
        (lambda: broken(whole, encoder__pooler__dense__bias=torch.zeros(3)), "unknown: encoder.pooler.dense"),
        (lambda: broken(whole, **{norm: torch.full((128,), torch.nan)}), "holds what is no number"),
        (lambda: files[1], "is a classifier; expected an encoder first"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            encoder_weights(path())
        assert "\n" not in str(error.value)
    for path, said in [
        (lambda: broken(classifier(), **{"3__bias": None}), "missing: 3.bias"),
        (lambda: broken(classifier(), **{"6__bias": torch.zeros(19)}), r"6.bias \(19,\) instead of \(31,\)"),
        (lambda: files[0], "is an encoder; expected an encoder first"),
        (lambda: broken({"x": torch.zeros(2)}), "is no classifier of SubCell"),
    ]:
        with pytest.raises(InputError, match=said):
            classifier_weights(path(), "", 256)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(files[0].read_bytes()[:5000])
    with pytest.raises(InputError, match="is damaged or no file of torch's"):
        encoder_weights(cut)


def test_nothing_of_a_file_is_run(tmp_path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps({"encoder.x": Hostile(proof)}))
    with pytest.raises(InputError, match="weights"):
        encoder_weights(path)
    torch.save({"encoder.x": Hostile(proof)}, path)
    with pytest.raises(InputError, match="asks to run posix.system"):
        encoder_weights(path)
    assert not proof.exists()


def test_options_of_subcell_are_refused_for_cell_networks(tmp_path, capsys) -> None:
    words = [
        "weights",
        "convert",
        str(tmp_path / "a.pth"),
        str(tmp_path / "a.safetensors"),
        "--licence",
        "MIT",
    ]
    assert main(words) == 2
    assert "--licence is of SubCell, which takes an encoder" in capsys.readouterr().err
    assert main(["weights", "convert", str(tmp_path / "encoder.pth"), str(tmp_path / "folder")]) == 2
    assert "of SubCell give the encoder, then its classifiers" in capsys.readouterr().err
