"""`--series`, `--time` and `--z`: parts of TIFF files, and the labels of the same part."""

import numpy as np
import pytest
import tifffile

from cellsparse.choices import Choice, chosen_items, chosen_parts, parse_choice, part_file
from cellsparse.errors import InvalidArgument
from cellsparse.items import Item
from cellsparse_common.imaging.images import decode_image

MOVIE = np.random.default_rng(0).integers(0, 255, (3, 4, 2, 20, 30)).astype(np.uint16)  # TZCYX


def limit():
    return 10**6


@pytest.fixture
def movie(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, MOVIE, imagej=True, metadata={"axes": "TZCYX"})
    return path


def test_times():
    assert parse_choice(None, "").everything
    assert parse_choice(2, "") == Choice(series=2)
    assert parse_choice(None, "3") == Choice(first=3, end=4, single=True)
    assert parse_choice(None, "0:10") == Choice(first=0, end=10)
    assert parse_choice(None, "5:") == Choice(first=5)
    for wrong in ("a", "3:3", "-1", "1:2:3", "1.5"):
        with pytest.raises(InvalidArgument, match=f"--time is '{wrong}'"):
            parse_choice(None, wrong)


def test_each_time_point_is_an_image(movie):
    parts = list(chosen_parts(movie, parse_choice(None, "1:10"), 10**6))
    assert [ending for ending, _ in parts] == ["-t001", "-t002"]
    for time, (_, part) in enumerate(parts, 1):
        sent = decode_image(part_file(part), max_pixels=10**6, stacks=True)
        assert sent.axes == "ZYXC"
        assert np.array_equal(sent.array, np.moveaxis(MOVIE[time], 1, -1))
    with pytest.raises(InvalidArgument, match=r"has 3 time point.s., so that time 7 does not exist"):
        list(chosen_parts(movie, parse_choice(None, "7"), 10**6))


def test_labels_of_the_same_time_point(movie, tmp_path):
    labels = np.arange(3 * 4).reshape(3, 4, 1, 1) * np.ones((20, 30), int)
    tifffile.imwrite(tmp_path / "l.tif", labels.astype(np.int16), imagej=True, metadata={"axes": "TZYX"})
    item = Item(name="movie", split="train", image=movie, label=tmp_path / "l.tif")
    made = list(chosen_items([item], parse_choice(None, "0:2"), limit))
    assert [entry.name for entry in made] == ["movie-t000", "movie-t001"]
    assert [int(entry.label[1, 0, 0]) for entry in made] == [1, 5]
    tifffile.imwrite(tmp_path / "l.tif", labels[0].astype(np.int16))
    assert next(chosen_items([item], parse_choice(None, "2"), limit)).label == tmp_path / "l.tif"
    with pytest.raises(InvalidArgument, match="holds labels of one time point, but --time asks for a range"):
        list(chosen_items([item], parse_choice(None, ":2"), limit))


def test_one_of_several_images(tmp_path):
    path = tmp_path / "several.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(np.zeros((40, 60), np.uint8))
        writer.write(np.full((30, 70), 7, np.uint16))
    with pytest.raises(InvalidArgument, match=r"holds 2 images of different kinds \(0: .* 40 x 60 YX, 1: .*--series"):
        decode_image(path.read_bytes(), max_pixels=10**6)
    ((ending, part),) = chosen_parts(path, parse_choice(1, ""), 10**6)
    assert (ending, part.array.shape, int(part.array[0, 0])) == ("", (30, 70), 7)
    with pytest.raises(InvalidArgument, match="holds 2 images, so that series 2 does not exist"):
        list(chosen_parts(path, parse_choice(2, ""), 10**6))


def test_one_plane_with_its_labels(movie, tmp_path):
    labels = np.arange(4).reshape(4, 1, 1) * np.ones((20, 30), np.int16)
    tifffile.imwrite(tmp_path / "l.tif", labels.astype(np.int16), imagej=True, metadata={"axes": "ZYX"})
    item = Item(name="movie", split="train", image=movie, label=tmp_path / "l.tif")
    choice = parse_choice(None, "1", 2)
    (made,) = chosen_items([item], choice, limit)
    assert (made.name, made.axes) == ("movie", "YXC")
    assert np.array_equal(made.image, np.moveaxis(MOVIE[1, 2], 0, -1))
    assert np.array_equal(made.label, labels[2])
    tifffile.imwrite(tmp_path / "l.tif", labels[1].astype(np.int16))  # of one plane already
    (made,) = chosen_items([item], choice, limit)
    assert made.label == tmp_path / "l.tif"
    tifffile.imwrite(tmp_path / "l.tif", labels[:2].astype(np.int16), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(InvalidArgument, match="The labels have 2 planes, so that z 2 does not exist"):
        list(chosen_items([item], choice, limit))
    with pytest.raises(InvalidArgument, match=r"has 4 plane\(s\), so that z 4 does not exist"):
        list(chosen_parts(movie, parse_choice(None, "1", 4), 10**6))
