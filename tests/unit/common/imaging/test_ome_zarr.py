"""OME-Zarr as the zarr package writes it: codecs, shards, time points, labels, and what is refused."""

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
