"""python -m skfp: folders of images to encoders and tables."""

import csv
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skfp import FeaturePredictionEncoder, ImageLoader, OnnxEncoder, PixelAutoencoder
from skfp.__main__ import main


@pytest.fixture(scope="module")
def encoder(frames, tmp_path_factory):
    """An ONNX file."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames).to_onnx(path)
    return path


@pytest.fixture
def photos(noise, tmp_path):
    """Make photos of several kinds in two folders, and files that are none."""
    root = tmp_path / "photos"
    for name in ("day", "night/old", ".thumbnails"):
        (root / name).mkdir(parents=True)
    image = Image.fromarray(noise(70, 90, 3))
    image.save(root / "day" / "1.png")
    image.convert("CMYK").save(root / "day" / "2.jpg")
    image.convert("L").save(root / "night" / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "night" / "rotated.jpg", exif=exif)
    image.save(
        root / "night" / "old" / "moving.gif", save_all=True, append_images=[image.rotate(90)]
    )
    image.save(root / "night" / "old" / "no ending", format="PNG")
    image.save(root / ".thumbnails" / "1.png")
    (root / "day" / "notes.txt").write_text("no image")
    (root / "night" / "broken.png").write_bytes((root / "day" / "1.png").read_bytes()[:500])
    return root


GOOD = [
    "day/1.png",
    "day/2.jpg",
    "night/3.png",
    "night/old/moving.gif",
    "night/old/no ending",
    "night/rotated.jpg",
]
BAD = ["day/notes.txt", "night/broken.png"]


def embed(folder, encoder, out, *options, n_jobs=1):
    command = ["embed", folder, "--encoder", encoder, "--out", out, "--n-jobs", n_jobs, *options]
    return main([str(part) for part in command])


def read(out):
    if out.suffix == ".npz":
        file = np.load(out)
        return file["paths"].tolist(), file["embedding"]
    table = pd.read_parquet(out) if out.suffix == ".parquet" else pd.read_csv(out)
    return table["path"].tolist(), table.iloc[:, 1:].to_numpy()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".npz"])
def test_every_good_file_is_embedded_and_every_bad_one_named(
    photos, encoder, tmp_path, capsys, ending
):
    out = tmp_path / f"out{ending}"

    status = embed(photos, encoder, out)

    assert status == 1
    paths, embedding = read(out)
    assert paths == GOOD
    images = ImageLoader(64).transform([photos / path for path in GOOD])
    np.testing.assert_allclose(embedding, OnnxEncoder(encoder).transform(images), atol=1e-6)
    with (tmp_path / "out.errors.csv").open(newline="") as table:
        assert [path for path, _ in csv.reader(table)] == ["path", *BAD]
    printed = capsys.readouterr()
    assert all(path in printed.err for path in BAD)
    assert "6 images" in printed.out
    assert "images/s" in printed.out
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out.errors.csv", out.name}


def test_status_0_without_bad_files(photos, encoder, tmp_path):
    for path in BAD:
        (photos / path).unlink()
    (tmp_path / "out.errors.csv").write_text("of an earlier run")
    assert embed(photos, encoder, tmp_path / "out.csv", n_jobs=2) == 0
    assert read(tmp_path / "out.csv")[0] == GOOD
    assert not (tmp_path / "out.errors.csv").exists()


def test_huge_files_are_named(photos, encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert embed(photos / "day", encoder, tmp_path / "out.csv") == 2
    printed = capsys.readouterr().err
    assert "1.png cannot be read: DecompressionBombError" in printed
    assert "No file in" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_status_2_where_nothing_is_written(photos, encoder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.onnx").write_text("no model")
    for folder, file, out, reason in [
        (tmp_path / "missing", encoder, "out.csv", "no folder"),
        (tmp_path / "empty", encoder, "out.csv", "no file in"),
        (photos, tmp_path / "foreign.onnx", "out.csv", "not an ONNX file"),
        (photos, tmp_path / "missing.onnx", "out.csv", "missing.onnx"),
        (photos, encoder, "out.xlsx", ".parquet, .csv, .npz"),
        (photos, encoder, "missing/out.csv", "Make it first"),
    ]:
        assert embed(folder, file, tmp_path / out) == 2
        assert reason in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "empty", "foreign.onnx"}


def test_probe_scores_folders(noise, encoder, tmp_path, capsys):
    for name, brightness in (("dark", 20), ("light", 220)):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8), brightness + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "classes" / name / f"{number}.png")

    assert embed(tmp_path / "classes", encoder, tmp_path / "out.npz", "--probe") == 0

    assert "accuracy 1.000 ± 0.000 (5-fold cross-validation, 2 classes)" in capsys.readouterr().out


def test_a_killed_run_goes_on(frames, encoder, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out.csv"
    photos.mkdir()
    for number in range(1500):
        Image.fromarray(frames[number % 16, ::4, ::4]).save(photos / f"{number:04}.bmp")
    log = tmp_path / "out.csv.part" / "log.jsonl"
    command = [sys.executable, "-m", "skfp", "embed", photos, "--encoder", encoder]
    process = subprocess.Popen(
        [*map(str, command), "--out", str(out), "--n-jobs", "1"], stderr=subprocess.DEVNULL
    )
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not out.exists()
    (photos / "0000.bmp").write_text("embedded already")
    with log.open("a") as lines:
        lines.write('[["half a li')

    assert embed(photos, encoder, out) == 0

    paths, embedding = read(out)
    assert paths == [f"{number:04}.bmp" for number in range(1500)]
    np.testing.assert_allclose(embedding[1488:], embedding[:12], atol=1e-6)
    assert np.ptp(embedding, axis=0).max() > 1e-3


def test_leaves_out_its_own_files(photos, encoder, tmp_path):
    out = photos / "day" / "out.csv"
    for _ in range(2):
        assert embed(photos, encoder, out) == 1
        with out.with_suffix(".errors.csv").open(newline="") as table:
            assert [path for path, _ in csv.reader(table)] == ["path", *BAD]


def test_goes_on_with_the_same_encoder_only(photos, encoder, tmp_path, capsys):
    (tmp_path / "out.csv.part").mkdir()
    (tmp_path / "out.csv.part" / "log.jsonl").write_text('{"folder": "another", "encoder": ""}\n')
    assert embed(photos, encoder, tmp_path / "out.csv") == 2
    assert "another folder or encoder" in capsys.readouterr().err


def test_fit_writes_an_encoder(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    photos, out = tmp_path / "photos", tmp_path / "encoder.onnx"
    photos.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(photos / f"{number:02}.png")
    options = ["--z", "5", "--size", "64", "--loss-network", "alexnet", "--max-epochs", "1"]

    assert main(["fit", str(photos), "--out", str(out), *options]) == 0

    expected = FeaturePredictionEncoder(5, max_epochs=1, random_state=0).fit(frames)
    np.testing.assert_allclose(
        OnnxEncoder(out).transform(frames), expected.transform(frames), atol=1e-5
    )
    assert "16 images" in capsys.readouterr().out
    assert not (tmp_path / "encoder.onnx.part").exists()
