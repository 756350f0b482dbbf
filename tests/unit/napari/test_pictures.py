"""Image layers as images of a dataset. The layers here have the attributes of napari's, whose package is not needed."""

from types import SimpleNamespace

import numpy as np
import pytest

from cellsparse.errors import InvalidArgument
from cellsparse_napari.pictures import item_names, picture, placement, read, read_labels


def layer(shape, *, rgb=False, labels=(), scale=None, units=None, dtype=np.uint8, multiscale=False):
    ndim = len(shape) - rgb
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return SimpleNamespace(
        name="field",
        data=[data, data[::2, ::2]] if multiscale else data,
        rgb=rgb,
        multiscale=multiscale,
        axis_labels=labels or tuple(f"-{ndim - index}" for index in range(ndim)),
        scale=np.array(scale or (1.0,) * ndim),
        translate=np.arange(ndim, dtype=float),
        units=units or ("pixel",) * ndim,
        rotate=np.eye(2),
        shear=np.zeros(1),
        affine=np.eye(3),
    )


@pytest.mark.parametrize(
    ("shape", "options", "axes", "label_shape", "read_shape"),
    [
        ((8, 9), {}, "YX", (8, 9), (8, 9)),
        ((8, 9, 3), {"rgb": True}, "YXC", (8, 9), (8, 9, 3)),
        ((8, 9, 4), {"rgb": True}, "YXC", (8, 9), (8, 9, 3)),
        ((5, 8, 9), {}, "ZYX", (5, 8, 9), (5, 8, 9)),
        ((5, 8, 9, 3), {"rgb": True}, "ZYXC", (5, 8, 9), (5, 8, 9, 3)),
        ((1, 8, 9), {}, "YX", (1, 8, 9), (8, 9)),
        ((1, 1, 8, 9), {}, "YX", (1, 1, 8, 9), (8, 9)),
        ((1, 5, 8, 9), {}, "ZYX", (1, 5, 8, 9), (5, 8, 9)),
        ((2, 8, 9), {"labels": ("c", "y", "x")}, "CYX", (8, 9), (2, 8, 9)),
        ((5, 2, 8, 9), {"labels": ("z", "Channel", "y", "x")}, "ZCYX", (5, 8, 9), (5, 2, 8, 9)),
    ],
)
def test_axes_follow_from_the_layer(shape, options, axes, label_shape, read_shape):
    found = picture(layer(shape, **options))
    assert found.item_axes == axes
    assert found.label_shape == label_shape
    assert read(found).shape == read_shape


@pytest.mark.parametrize("shape", [(4, 5, 8, 9), (9,)])
def test_other_axes_are_refused_by_name_and_size(shape):
    with pytest.raises(InvalidArgument, match=r"'field' has the size .*9; allowed: one plane"):
        picture(layer(shape))


def test_points_in_time_are_no_planes():
    with pytest.raises(InvalidArgument, match="'field' has an axis 't' of 5 points in time"):
        picture(layer((5, 8, 9), labels=("t", "y", "x")))
    assert picture(layer((1, 8, 9), labels=("t", "y", "x"))).item_axes == "YX"


def test_the_finest_level_of_a_pyramid_counts():
    assert picture(layer((8, 8), multiscale=True)).data.shape == (8, 8)


@pytest.mark.parametrize(
    ("given", "sent"), [(bool, np.uint8), (np.float64, np.float32), (np.float16, np.float32), (np.uint16, np.uint16)]
)
def test_pixels_are_sent_in_a_type_that_a_file_can_hold(given, sent):
    assert read(picture(layer((4, 4), dtype=given))).dtype == sent


def test_complex_pixels_are_refused():
    with pytest.raises(InvalidArgument, match="complex64"):
        read(picture(layer((4, 4), dtype=np.complex64)))


@pytest.mark.parametrize(
    ("scale", "units", "expected"),
    [
        ((2.0, 0.5, 0.5), None, (2.0, 0.5, 0.5)),
        ((2000.0, 500.0, 500.0), ("nanometer",) * 3, (2.0, 0.5, 0.5)),
        ((2.0, 0.5, 0.5), ("second", "micrometer", "micrometer"), ()),
        (None, None, ()),
    ],
)
def test_a_stacks_scale_is_its_spacing(scale, units, expected):
    assert picture(layer((5, 8, 9), scale=scale, units=units)).spacing == pytest.approx(expected)


def test_a_plane_has_no_spacing():
    assert picture(layer((8, 9), scale=(0.5, 0.5))).spacing == ()


def test_labels_have_the_size_of_their_image_with_or_without_axes_of_length_one():
    image = picture(layer((1, 8, 9)))
    assert read_labels(np.zeros((1, 8, 9), int), image, "cells").shape == (8, 9)
    assert read_labels(np.zeros((8, 9), int), image, "cells").shape == (8, 9)
    with pytest.raises(InvalidArgument, match="'cells' has the size 9 x 8, image 'field' 1 x 8 x 9"):
        read_labels(np.zeros((9, 8), int), image, "cells")


def test_labels_lie_where_the_image_lies():
    whole = layer((5, 8, 9), scale=(2.0, 0.5, 0.25))
    place = placement(whole, picture(whole))
    assert place["scale"].tolist() == [2.0, 0.5, 0.25]
    assert place["translate"].tolist() == [0.0, 1.0, 2.0]
    assert place["affine"] is whole.affine


def test_the_axis_of_channels_has_no_place():
    channels = layer((2, 8, 9), labels=("c", "y", "x"), scale=(1.0, 0.5, 0.25))
    place = placement(channels, picture(channels))
    assert place["scale"].tolist() == [0.5, 0.25]
    assert place["axis_labels"] == ["y", "x"]
    assert "affine" not in place


def test_an_rgb_layer_counts_its_channels_apart():
    colour = layer((8, 9, 3), rgb=True, scale=(0.5, 0.25))
    assert placement(colour, picture(colour))["scale"].tolist() == [0.5, 0.25]


def test_names_are_plain_and_each_only_once():
    given = ["a/b.tif", "a/b.tif", "Zelle µ [1]", "", "§", ".hidden", "x" * 300]
    assert list(item_names(given)) == ["a b.tif", "a b.tif 2", "Zelle 1", "image", "image 2", "hidden", "x" * 80]
