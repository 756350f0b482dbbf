"""3D stacks from file to store and back: axes, spacing, sizes, labels, scores."""

import io
from pathlib import Path

import numpy as np
import pytest
import stardist
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stardist.matching import matching_dataset
from support.total_scores import total_scores

from cellsparse_common import dataset_items, datasets
from cellsparse_common.errors import InvalidArgument, ResourceExhausted, StorageError
from cellsparse_common.imaging.images import decode_image, encode_tiff, normalize, to_gray
from cellsparse_common.imaging.labels import LabelKind, count_cells, decode_labels, encode_labels, without_small
from cellsparse_common.imaging.tiff_spacing import unit_micrometres
from cellsparse_common.scoring.matching import DEFAULT_IOUS
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2

RNG = np.random.default_rng(3)
STACK = RNG.integers(0, 60_000, (12, 17, 13)).astype(np.uint16)
COLOURS = RNG.integers(0, 255, (12, 17, 13, 3)).astype(np.uint8)
LABEL = np.zeros((12, 17, 13), np.int32)
LABEL[2:6, 2:6, 2:6] = 1
LABEL[7:11, 9:15, 5:9] = 40
IMAGEJ = {"unit": "um", "spacing": 2.0}
REAL = Path(stardist.__file__).parent / "data" / "images"


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def decode(data, axes="", max_pixels=20_000):
    return decode_image(data, max_pixels=max_pixels, stacks=True, axes=axes)


def decode_label(data, kind=LabelKind.LABEL_KIND_INSTANCES, shape=LABEL.shape):
    return decode_labels(data, shape=shape, max_pixels=10_000, kind=kind)


@pytest.mark.parametrize(
    "data",
    [
        tiff(STACK),
        tiff(STACK, photometric="minisblack", metadata=None),
        tiff(STACK, compression="zlib", bigtiff=True),
        tiff(STACK, imagej=True, metadata={"axes": "ZYX"}),
        tiff(STACK, ome=True, metadata={"axes": "ZYX"}),
        tiff(STACK[:, None], imagej=True, metadata={"axes": "ZCYX"}),
        encode_tiff(STACK, stack=True),
    ],
)
def test_stacks_of_one_channel(data):
    image = decode(data)
    assert image.axes == "ZYX"
    np.testing.assert_array_equal(image.array, STACK)


@pytest.mark.parametrize(
    "data",
    [
        tiff(COLOURS, photometric="rgb"),
        tiff(np.moveaxis(COLOURS, 3, 1), imagej=True, metadata={"axes": "ZCYX"}),
        tiff(np.moveaxis(COLOURS, 3, 1), ome=True, metadata={"axes": "ZCYX"}),
        tiff(np.moveaxis(COLOURS, 3, 0), ome=True, metadata={"axes": "CZYX"}),
        encode_tiff(COLOURS, stack=True, spacing=(1, 1, 1)),
    ],
)
def test_stacks_of_channels(data):
    image = decode(data)
    assert image.axes == "ZYXC"
    np.testing.assert_array_equal(image.array, COLOURS)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 20, 30), "YXC"), ((20, 30, 3), "YXC"), ((4, 9, 3), "YXC"), ((10, 20, 30), "ZYX"), ((30, 20, 10), "ZYX")],
)
def test_a_file_without_names_holds_channels_or_planes(shape, axes):
    assert decode(tiff(np.zeros(shape, np.uint8), metadata=None, photometric="minisblack")).axes == axes


@pytest.mark.parametrize(("shape", "channels"), [((5, 30, 40), 5), ((9, 30, 40), 9), ((30, 40, 6), 6)])
def test_where_nobody_can_tell_the_axes_are_asked_for(shape, channels):
    data = tiff(np.zeros(shape, np.float32))
    with pytest.raises(InvalidArgument, match=f"has {channels} channels.*without a name.*and of a stack, such as ZYX"):
        decode(data)
    assert decode(data, axes="ZYX").array.shape == shape


def test_given_axes_win_over_what_a_file_says():
    mislabelled = tiff(STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(InvalidArgument, match=r"time series of 12 planes.*or give the axes"):
        decode(mislabelled)
    np.testing.assert_array_equal(decode(mislabelled, axes="ZYX").array, STACK)
    few = tiff(STACK[:4])
    np.testing.assert_array_equal(decode(few, axes="ZYX").array, STACK[:4])
    moved = tiff(np.moveaxis(COLOURS, 3, 1), photometric="minisblack")
    with pytest.raises(InvalidArgument, match="has 4 axes"):
        decode(moved)
    np.testing.assert_array_equal(decode(moved, axes="ZCYX").array, COLOURS)
    for data, axes in ((tiff(STACK[0]), "ZYX"), (tiff(STACK), "YX"), (tiff(STACK), "ZCYX")):
        with pytest.raises(InvalidArgument, match=f"which cannot be {axes}"):
            decode(data, axes=axes)


def test_where_a_plane_is_wanted_a_stack_is_refused():
    with pytest.raises(InvalidArgument, match="3D stack of 12 planes"):
        decode_image(tiff(STACK), max_pixels=10_000)


def test_voxels_are_counted_before_anything_is_decoded():
    assert decode(tiff(STACK), max_pixels=STACK.size).array.size == STACK.size
    with pytest.raises(ResourceExhausted, match="12 x 17 x 13 = 2,652 values; allowed: at most 2,651"):
        decode(tiff(STACK), max_pixels=STACK.size - 1)
    with pytest.raises(ResourceExhausted, match="12 x 17 x 13 = 2,652"):
        decode(tiff(np.moveaxis(COLOURS, 3, 1), imagej=True, metadata={"axes": "ZCYX"}), max_pixels=2_651)
    with pytest.raises(ResourceExhausted, match="12 x 17 x 13"):
        decode(tiff(STACK), max_pixels=300)


MICROMETRES = ("um", "\\u00B5m", "micron", "microns", "Micrometers", "micrometre", "MICROMETRES", "um.", " um ")


def spaced(resolution, **about):
    """A stack as ImageJ writes it, with so many pixels per unit in x and y."""
    return tiff(STACK, imagej=True, resolution=(resolution, resolution), metadata={"axes": "ZYX", **about})


@pytest.mark.parametrize("unit", ["\u00b5m", "\u03bcm", "\u00b5ms", "\u00c2\u00b5m", "&#181;m", "&#xB5;m"])
def test_signs_for_micro(unit):
    assert unit_micrometres(unit) == 1


@pytest.mark.parametrize("planes", [2, 3, 4, 6])
@pytest.mark.parametrize("named", [False, True])
def test_labels_of_thin_stacks_without_axes_say_what_to_give(planes, named):
    label = tiff(
        np.ones((planes, 17, 13), np.int32), photometric="minisblack", metadata={"axes": "ZYX"} if named else None
    )
    with pytest.raises(InvalidArgument, match=r"give its axes: ZYX \(--axes ZYX\)"):
        decode_labels(label, shape=(17, 13), max_pixels=2**20)


@pytest.mark.parametrize(
    ("data", "spacing"),
    [
        (tiff(STACK, imagej=True, resolution=(5, 4), metadata={"axes": "ZYX", **IMAGEJ}), (2.0, 0.25, 0.2)),
        (tiff(STACK, imagej=True, resolution=(5, 4), metadata={"axes": "ZYX", **IMAGEJ, "unit": "pixel"}), ()),
        (tiff(STACK, imagej=True, resolution=(5, 4), metadata={"axes": "ZYX", **IMAGEJ, "unit": "nm"}), None),
        (tiff(STACK[0], imagej=True, resolution=(5, 4), metadata={"unit": "micron"}), (0.25, 0.2)),
        (tiff(STACK, resolution=(72, 72)), ()),
        (
            tiff(STACK, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.1625, "PhysicalSizeY": 0.1625}),
            (0.1625, 0.1625, 0.1625),
        ),
        (
            tiff(
                STACK,
                ome=True,
                metadata={
                    "axes": "ZYX",
                    "PhysicalSizeX": 300,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.3,
                    "PhysicalSizeZ": 1.5,
                    "PhysicalSizeZUnit": "µm",
                },
            ),
            (1.5, 0.3, 0.3),
        ),
        (spaced(1 / 500, unit="nm", spacing=2.0, zunit="um"), (2.0, 0.5, 0.5)),
        (spaced(2.0, unit="um", spacing=-2.0), (2.0, 0.5, 0.5)),
        (spaced(2.0, unit="um", spacing=2000, zunit="nm", yunit="\\u00B5m"), (2.0, 0.5, 0.5)),
        (spaced(2.0, unit="um", spacing=2.0, zunit="pixel"), ()),
        (spaced(2.0, unit="um", spacing=0), ()),
        *((spaced(2.0, unit=unit, spacing=2.0), (2.0, 0.5, 0.5)) for unit in MICROMETRES),
        (spaced(2.0, unit="mm", spacing=0.002), (2.0, 500.0, 500.0)),
        (spaced(2.0, unit="pixels", spacing=2.0), ()),
        (spaced(2.0, unit="furlongs", spacing=2.0), ()),
        (
            tiff(
                STACK,
                ome=True,
                metadata={
                    "axes": "ZYX",
                    "PhysicalSizeX": 500,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": -0.5,
                    "PhysicalSizeZ": 0.002,
                    "PhysicalSizeZUnit": "mm",
                },
            ),
            (2.0, 0.5, 0.5),
        ),
        (
            tiff(STACK, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}),
            (),
        ),
    ],
)
def test_spacing_from_the_file(data, spacing):
    expected = (0.002, 0.00025, 0.0002) if spacing is None else spacing
    assert decode(data).spacing == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_written_stacks_are_read_by_tifffile_with_their_names(dtype):
    data = encode_tiff(STACK.astype(dtype), stack=True, spacing=(2.0, 0.1625, 0.1625))
    assert data == encode_tiff(STACK.astype(dtype), stack=True, spacing=(2.0, 0.1625, 0.1625))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == 2.0
        np.testing.assert_array_equal(file.asarray(), STACK.astype(dtype))
    assert decode(data).spacing == (2.0, 0.1625, 0.1625)


def test_labels_have_the_axes_of_their_image():
    for data in (tiff(LABEL), tiff(LABEL.astype("f4"), metadata=None), encode_labels(LABEL, (2.0, 1.0, 1.0))):
        np.testing.assert_array_equal(decode_label(data), LABEL)
    few = np.where(LABEL[:4] == 1, 1, -1)  # unnamed and of few planes: the image says what they are
    np.testing.assert_array_equal(decode_label(tiff(few), shape=few.shape), few)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (tiff(LABEL[1:]), 1, "is 11 x 17 x 13 pixels, its image 12 x 17 x 13"),
        (tiff(LABEL[2]), 1, "is 17 x 13 pixels, its image 12 x 17 x 13"),
        (tiff(np.where(LABEL == 40, -3, LABEL)), 1, "holds -3 at z=7, y=9, x=5"),
        (tiff((LABEL > 0).astype(np.uint8)), 1, "one cell, 1, in 2 separate parts"),
        (tiff(COLOURS, photometric="rgb"), 1, "has 3 channels"),
        (b'{"images": [], "annotations": [], "categories": []}', 1, "is COCO.*stack of 12 planes"),
    ],
)
def test_refused_labels(data, kind, words):
    with pytest.raises(InvalidArgument, match=words):
        decode_label(data, kind=kind)


def test_a_stack_of_labels_for_a_plane_is_refused():
    with pytest.raises(InvalidArgument, match="3D stack of 12 planes"):
        decode_label(tiff(LABEL), shape=(17, 13))


def test_a_binary_stack_becomes_components_in_space():
    mask = (LABEL > 0).astype(np.uint8)
    mask[6, 6, 6] = 1  # touches both cells, each by a corner or an edge
    assert count_cells(decode_label(tiff(LABEL > 0), kind=LabelKind.LABEL_KIND_BINARY)) == 2
    label = decode_label(tiff(mask), kind=LabelKind.LABEL_KIND_BINARY)
    assert label[6, 6, 6] == label[5, 5, 5] == 1


def test_small_cells_are_counted_in_voxels():
    assert count_cells(without_small(LABEL, 65)) == 1
    assert count_cells(without_small(LABEL, 64)) == 2


def test_grey_values_of_stacks():
    assert to_gray(STACK, stack=True).shape == STACK.shape
    np.testing.assert_allclose(to_gray(COLOURS, stack=True), COLOURS.mean(axis=3), rtol=1e-6)
    np.testing.assert_array_equal(to_gray(COLOURS, 1, stack=True), COLOURS[..., 1])
    with pytest.raises(InvalidArgument, match="channel 3 does not exist"):
        to_gray(COLOURS, 3, stack=True)
    assert normalize(to_gray(STACK, stack=True), 0, 100).max() == 1


@pytest.mark.parametrize(("image", "axes"), [(STACK, "ZYX"), (COLOURS, "ZYXC")])
def test_items_in_the_store(tmp_path, image, axes):
    store = FolderStore(tmp_path / "store")
    item = datasets.put_item(
        store, name="s", split=common_pb2.SPLIT_TRAIN, image=image, label=LABEL, spacing=(2, 0.5, 0.5)
    )
    assert (item.axes, tuple(item.shape), list(item.spacing)) == (axes, image.shape, [2, 0.5, 0.5])
    assert dataset_items.is_stack(item)
    assert dataset_items.label_shape(item) == LABEL.shape
    np.testing.assert_array_equal(datasets.read_image(store, item), image)
    np.testing.assert_array_equal(datasets.read_labels(store, item), LABEL)
    plane = datasets.put_item(store, name="p", split=common_pb2.SPLIT_TRAIN, image=STACK[0], label=LABEL[2])
    item.label_sha256 = plane.label_sha256
    with pytest.raises(StorageError, match="label image of item 's'"):
        datasets.read_labels(store, item)
    with pytest.raises(InvalidArgument, match="Item 's' is a stack and item 'p' is 2D"):
        dataset_items.refuse_mixture([item, plane], "dataset_id")
    dataset_items.refuse_mixture([item, item], "dataset_id")


@given(
    hnp.arrays(np.int32, (4, 6, 5), elements=st.integers(0, 3)),
    hnp.arrays(np.int32, (4, 6, 5), elements=st.integers(0, 3)),
)
@settings(max_examples=30)
def test_scores_of_stacks_equal_stardist(true, pred):
    ours = total_scores([(true, pred), (pred, pred)])
    theirs = matching_dataset([true, pred], [pred, pred], thresh=DEFAULT_IOUS, show_progress=False)
    for mine, stock in zip(ours, theirs, strict=True):
        assert (mine.tp, mine.fp, mine.fn) == (stock.tp, stock.fp, stock.fn)
        assert abs(mine.mean_true_score - stock.mean_true_score) < 1e-9


def test_scores_of_real_nuclei_equal_stardist():
    true = tifffile.imread(REAL / "mask3d.tif").astype(np.int32)[5:20]
    pred = np.roll(true, 3, axis=2)
    ours = total_scores([(true, pred)])
    theirs = matching_dataset([true], [pred], thresh=DEFAULT_IOUS, show_progress=False)
    assert [(a.tp, a.fp, a.fn) for a in ours] == [(b.tp, b.fp, b.fn) for b in theirs]
