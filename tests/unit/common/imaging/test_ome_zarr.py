"""OME-Zarr as the zarr package writes it: codecs, shards, time points, labels, and what is refused."""

import io
import json
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec

from cellsparse.choices import chosen_parts, parse_choice
from cellsparse.folders import read_folder
from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import ome_zarr
from cellsparse_common.imaging.images import decode_image, read_ome_zarr
from cellsparse_common.imaging.label_formats import LabelOutput, encode
from cellsparse_common.imaging.labels import decode_labels

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 2, 4, 50, 70)).astype(np.uint16)


def write(path, form, *, dtype="u2", compressors="auto", shards=None, pixels=PIXELS):
    group = zarr.open_group(path, mode="w", zarr_format=form)
    keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if form == 2 else {}
    array = group.create_array(
        "0", shape=pixels.shape, chunks=(1, 1, 2, 20, 32), shards=shards, dtype=dtype, compressors=compressors, **keys
    )
    array[:] = pixels.astype(dtype)
    axes = [{"name": name, **({"type": "space", "unit": "micrometer"} if name in "zyx" else {})} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 2, 0.5, 0.5]}]
    images = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": images}} if form == 3 else {"multiscales": images})
    return path


@pytest.mark.parametrize(
    ("form", "dtype", "compressors", "shards"),
    [
        (3, "u2", "auto", None),
        (3, "f4", BloscCodec(), None),
        (3, "u1", GzipCodec(), None),
        (3, "u2", "auto", (1, 2, 4, 40, 64)),
        (3, "i4", None, None),
        (2, "u2", "auto", None),
        (2, ">u2", numcodecs.Blosc(), None),
        (2, "f4", numcodecs.Zlib(), None),
        (2, "i2", None, None),
    ],
)
def test_images_of_the_zarr_package(tmp_path, form, dtype, compressors, shards):
    path = write(tmp_path / "a.zarr", form, dtype=dtype, compressors=compressors, shards=shards)
    for time, (ending, part) in enumerate(chosen_parts(path, parse_choice(None, "0:2"), 10**6)):
        assert (ending, part.axes, part.spacing) == (f"-t{time:03d}", "ZYXC", (2.0, 0.5, 0.5))
        assert np.array_equal(part.array, np.moveaxis(PIXELS[time], 0, -1).astype(dtype))
    with pytest.raises(InvalidArgument, match="time series of 3 planes"):
        read_ome_zarr(path, max_pixels=10**6)
    with pytest.raises(ResourceExhausted, match="allowed: at most 1,000"):
        read_ome_zarr(path, max_pixels=1000, time=0)


def test_a_zip_with_a_folder_at_its_top(tmp_path):
    path = write(tmp_path / "a.zarr", 3, pixels=PIXELS[:1])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    read = decode_image((tmp_path / "a.zip").read_bytes(), max_pixels=10**6, stacks=True)
    assert np.array_equal(read.array, np.moveaxis(PIXELS[0], 0, -1))


def test_of_a_plane_only_its_chunks_are_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zarr", 3)  # chunks of two planes, 3 x 3 in each
    keys = []
    reader = ome_zarr.folder_reader

    def noting(root):
        get = reader(root)
        return lambda key: keys.append(key) or get(key)

    monkeypatch.setattr(ome_zarr, "folder_reader", noting)
    read = read_ome_zarr(path, max_pixels=50 * 70, time=1, z=3)
    assert (read.axes, read.spacing) == ("YXC", (0.5, 0.5))
    assert np.array_equal(read.array, np.moveaxis(PIXELS[1, :, 3], 0, -1))
    assert sorted(key for key in keys if "/c/" in key) == sorted(
        f"0/c/1/{c}/1/{y}/{x}" for c in range(2) for y in range(3) for x in range(3)
    )
    whole = read_ome_zarr(path, max_pixels=10**6, time=1, z=3, axes="CZYX")
    assert np.array_equal(whole.array, read.array)
    with pytest.raises(InvalidArgument, match=r"has 4 plane\(s\), so that z 4 does not exist"):
        read_ome_zarr(path, max_pixels=10**6, time=1, z=4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    zipped = decode_image((tmp_path / "a.zip").read_bytes(), max_pixels=50 * 70, time=1, z=3)
    assert np.array_equal(zipped.array, read.array)


@pytest.mark.parametrize("name", ["ome-zarr", "ome-zarr-0.4"])
def test_labels_come_back(name):
    label = np.random.default_rng(1).integers(-1, 5, (600, 700)).astype(np.int32)
    for each in (label, label[:60, :50].reshape(3, 20, 50)):
        data = encode(name, LabelOutput(label=each, spacing=(0.5,) * each.ndim))
        assert np.array_equal(decode_labels(data, shape=each.shape, max_pixels=10**6), each)


def test_folders_of_images_are_paired_and_not_looked_into(tmp_path):
    for role in ("images", "masks"):
        (tmp_path / role).mkdir()
        write(tmp_path / role / "a.ome.zarr", 3)
    (item,) = read_folder(tmp_path).items
    assert (item.image, item.label) == (tmp_path / "images" / "a.ome.zarr", tmp_path / "masks" / "a.ome.zarr")


def test_a_sentence_says_why_one_is_refused(tmp_path):
    path = write(tmp_path / "a.zarr", 3)
    about = json.loads((path / "0" / "zarr.json").read_text())
    for change, words in (
        (
            {"codecs": [{"name": "bytes"}, {"name": "lzma"}]},
            "is packed with 'lzma'; allowed: blosc, gzip, zlib and zstd",
        ),
        ({"data_type": "complex64"}, "type complex64"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0] * 5}}}, "which is not read"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 2**20, 2**20, 1]}}}, "too large"),
        ({"shape": [3, 2]}, "which is not read"),
        ({"codecs": 5}, "codecs are not understood"),
    ):
        (path / "0" / "zarr.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(InvalidArgument, match=words):
            read_ome_zarr(path, max_pixels=10**9, max_bytes=10**12, time=0)
    (path / "0" / "zarr.json").write_text(json.dumps(about))
    chunk = next(file for file in (path / "0" / "c" / "0").rglob("*") if file.is_file())
    chunk.write_bytes(b"broken")
    with pytest.raises(InvalidArgument, match="broken chunk"):
        read_ome_zarr(path, max_pixels=10**6, time=0)
    (path / "zarr.json").unlink()
    with pytest.raises(InvalidArgument, match="has no image"):
        read_ome_zarr(path, max_pixels=10**6, time=0)


def described(path, **changes):
    """Change an image's description."""
    file = path / "zarr.json"
    about = json.loads(file.read_text())
    about["attributes"]["ome"]["multiscales"][0].update(changes)
    file.write_text(json.dumps(about))
    return path


@pytest.mark.parametrize("shards", [None, (16, 16)])
@pytest.mark.parametrize("fill", [-1, 7])
def test_what_is_not_stored_has_the_fill_value(tmp_path, shards, fill):
    label = np.full((40, 50), fill, np.int32)
    label[:10, :10], label[10:16, :10] = 3, 0
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    array = group.create_array("0", shape=label.shape, chunks=(4, 4), shards=shards, dtype="i4", fill_value=fill)
    array[:] = label
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"axes": AXES_YX, "datasets": [{"path": "0"}]}]}})
    assert np.array_equal(read_ome_zarr(tmp_path / "a.zarr", max_pixels=10**6, labels=True).array, label)


AXES_YX = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


@pytest.mark.parametrize(
    ("dtype", "fill", "words"),
    [
        ("float32", "NaN", "holds nan at"),
        ("float32", "-Infinity", "holds -inf at"),
        ("uint8", -1, "fill value '-1', which its type uint8 does not hold"),
        ("uint16", "NaN", "fill value 'NaN', which its type uint16 does not hold"),
    ],
)
def test_fill_values_that_are_no_pixels(tmp_path, dtype, fill, words):
    path = write(tmp_path / "a.zarr", 3, dtype="f4", pixels=PIXELS[:1])
    file = path / "0" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "data_type": dtype, "fill_value": fill}))
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(InvalidArgument, match=words):
        read_ome_zarr(path, max_pixels=10**6)


@pytest.mark.parametrize("unit", ["micrometer", "um", "\u00b5m", "micron", "micrometers", "Micrometre"])
def test_units_and_negative_steps(tmp_path, unit):
    axes = [{"name": name, **({"type": "space", "unit": unit} if name in "zyx" else {})} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, -2, 0.5, 0.25]}]
    path = write(tmp_path / "a.zarr", 3, pixels=PIXELS[:1])
    described(path, axes=axes, datasets=[{"path": "0", "coordinateTransformations": scale}])
    assert read_ome_zarr(path, max_pixels=10**6).spacing == (2.0, 0.5, 0.25)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("listed", [True, False])
def test_the_layout_of_bioformats2raw(tmp_path, form, listed):
    """A group of images 0, 1, ...: the only one is taken, one of several is chosen."""
    root = tmp_path / "a.zarr"
    group = zarr.open_group(root, mode="w", zarr_format=form)
    about = {"bioformats2raw.layout": 3}
    group.attrs.update({"ome": {"version": "0.5", **about}} if form == 3 else about)
    ome = group.create_group("OME")
    write(root / "0", form, pixels=PIXELS[:1])
    if listed:
        ome.attrs.update({"ome": {"series": ["0"]}} if form == 3 else {"series": ["0"]})
    first = np.moveaxis(PIXELS[0], 0, -1)
    assert np.array_equal(read_ome_zarr(root, max_pixels=10**6).array, first)
    write(root / "1", form, pixels=PIXELS[1:2])
    if listed:
        ome.attrs.update({"ome": {"series": ["0", "1"]}} if form == 3 else {"series": ["0", "1"]})
    with pytest.raises(InvalidArgument, match=r"holds 2 images; choose one by its number with series \(--series\)"):
        read_ome_zarr(root, max_pixels=10**6)
    ((_, part),) = chosen_parts(root, parse_choice(1, ""), 10**6)
    assert np.array_equal(part.array, np.moveaxis(PIXELS[1], 0, -1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    zipped = decode_image((tmp_path / "a.zip").read_bytes(), max_pixels=10**6, stacks=True, series=0)
    assert np.array_equal(zipped.array, first)
    with pytest.raises(InvalidArgument, match=r"holds 2 image\(s\), so that series 2 does not exist"):
        read_ome_zarr(root, max_pixels=10**6, series=2)


def test_one_image_is_series_0(tmp_path):
    path = write(tmp_path / "a.zarr", 3)
    assert read_ome_zarr(path, max_pixels=10**6, series=0, time=1).axes == "ZYXC"
    with pytest.raises(InvalidArgument, match="series 1 does not exist"):
        read_ome_zarr(path, max_pixels=10**6, series=1, time=1)


def test_nothing_above_the_group_and_no_choice_of_labels_is_guessed(tmp_path):
    path = described(write(tmp_path / "a.zarr", 3), datasets=[{"path": "../b.zarr/0"}])
    write(tmp_path / "b.zarr", 3)
    with pytest.raises(InvalidArgument, match="names a folder above its own"):
        read_ome_zarr(path, max_pixels=10**6, time=0)
    group = zarr.open_group(tmp_path / "b.zarr", mode="a").create_group("labels")
    group.attrs.update({"ome": {"labels": ["cells", "nuclei"]}})
    with pytest.raises(InvalidArgument, match=r"holds 2 label images \(cells, nuclei\); keep one of them"):
        read_ome_zarr(tmp_path / "b.zarr", max_pixels=10**6, labels=True)


def test_a_zip_with_a_broken_stream_is_refused_in_words():
    """Its checksum is never reached: zlib itself raises."""
    file = bytearray(encode("ome-zarr", LabelOutput(label=np.ones((8, 8), np.int32))))
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as again:
            for name in archive.namelist():
                again.writestr(name, archive.read(name))
    data = bytearray(packed.getvalue())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    for info in infos:
        start = info.header_offset + 30 + len(info.filename)
        data[start : start + 4] = b"\xff" * 4
    with pytest.raises(InvalidArgument, match="truncated or broken zip file"):
        decode_image(bytes(data), max_pixels=100)


def test_a_zip_of_too_many_files_is_refused_before_they_are_listed():
    entry = b"PK\x01\x02" + bytes(42)
    with pytest.raises(ResourceExhausted, match="more than 100,000 files"):
        decode_image(b"PK\x03\x04" + entry * 100_001, max_pixels=100)
