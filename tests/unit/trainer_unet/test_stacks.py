"""Stacks: the same mathematics along a third axis, with planes further apart than pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from skimage.measure import regionprops

from cellsparse_common.scoring.matching import match_counts
from cellsparse_unet import tuning
from cellsparse_unet.ellipses import PIXEL_MOMENT, cell_moments, draw, reach_of
from cellsparse_unet.instances import Thresholds, find_cells
from cellsparse_unet.loss import segmentation_loss
from cellsparse_unet.network import UNet, flat_levels, initialise
from cellsparse_unet.targets import three_classes
from cellsparse_unet.tiles import probabilities

SHAPE = (18, 44, 60)
CELLS = [(8, 12, 14, 5, 9, 10), (7, 13, 35, 4, 10, 9), (10, 32, 20, 5, 9, 12), (9, 30, 48, 6, 11, 10)]


def ellipsoid(shape, centre, axes):
    away = (np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(axes, (3, 1, 1, 1))
    return (away**2).sum(0) <= 1


@pytest.fixture
def dense():
    out = np.zeros(SHAPE, np.int32)
    for n, (z, y, x, a, b, c) in enumerate(CELLS):
        out[ellipsoid(SHAPE, (z, y, x), (a, b, c))] = n + 1
    return out


def test_moments_equal_regionprops(dense):
    moments = cell_moments(dense)
    for n, region in enumerate(regionprops(dense)):
        np.testing.assert_allclose(moments.centre[n], region.centroid)
        mu = region.moments_central
        second = np.diag([mu[2, 0, 0], mu[0, 2, 0], mu[0, 0, 2]])
        second[0, 1] = second[1, 0] = mu[1, 1, 0]
        second[0, 2] = second[2, 0] = mu[1, 0, 1]
        second[1, 2] = second[2, 1] = mu[0, 1, 1]
        np.testing.assert_allclose(moments.covariance[n], second / mu[0, 0, 0] + PIXEL_MOMENT * np.eye(3), atol=1e-9)


def test_drawn_ellipsoid_equals_the_cell(dense):
    moments = cell_moments(dense)
    owner, radius = draw(moments, SHAPE)
    for cell in moments.ids:
        both = ((owner == cell) & (dense == cell)).sum()
        assert both / ((owner == cell) | (dense == cell)).sum() > 0.9
    np.testing.assert_allclose(
        reach_of(3) * np.sqrt(np.linalg.eigvalsh(moments.covariance[0])), sorted(CELLS[0][3:]), rtol=0.05
    )
    assert radius[8, 12, 14] < 0.1


@pytest.mark.parametrize("planes", [1, 2])
def test_a_cell_of_few_planes_is_drawn(planes):
    label = np.full((6, 30, 30), -1, np.int32)
    label[2 : 2 + planes, 5:20, 5:20] = 4
    label[0, 0, 0] = 9  # a single voxel
    classes = three_classes(label, 0.5)
    assert np.isfinite(cell_moments(label).covariance).all()
    assert classes[2, 12, 12] == classes[0, 0, 0] == 2
    assert (classes[label > 0] > 0).all()
    assert (classes[[0, 5], 10:15, 10:15] == -1).all()


def test_labels_limit_the_ellipsoid(dense):
    label = np.where(dense == 1, 1, -1).astype(np.int32)
    label[:, :8] = np.where(label[:, :8] == 1, -1, 0)  # the cell is cut: its ellipsoid reaches over what was cut off
    classes = three_classes(label, 0.5)
    assert (classes[label == 0] == 0).all()
    assert (classes[label > 0] > 0).all()
    assert (classes[:, :, 40:][label[:, :, 40:] < 0] == -1).all()


def test_thick_planes_have_no_rim_between_them():
    label = np.where(ellipsoid((15, 31, 31), (7, 15, 15), (6, 12, 12)), 1, 0).astype(np.int32)
    thin, thick = (three_classes(label, 0.5, distance) == 2 for distance in (1.9, 2.0))
    assert (thick.any((1, 2)).sum(), thin.any((1, 2)).sum()) == (5, 3)
    np.testing.assert_array_equal(thick[7], thin[7])


def one_hot(label, plane_distance, sure=0.9):
    classes = three_classes(label, 0.5, plane_distance)
    return np.stack([np.where(classes == n, sure, (1 - sure) / 2) for n in range(3)]).astype(np.float32)


@pytest.mark.parametrize("distance", [1.0, 2.0])
@pytest.mark.parametrize("method", ["ellipse", "watershed"])
def test_true_classes_give_the_true_cells(dense, method, distance):
    cut = Thresholds(
        method=method,
        centre_threshold=0.5,
        cell_threshold=0.5,
        centre_scale=0.5,
        centre_smoothing=0.3,
        smallest_cell=0,
        plane_distance=distance,
    )
    found = find_cells(one_hot(dense, distance), cut)
    assert found.dtype == np.int32
    [counts] = match_counts(dense, found, [0.7])
    assert (counts.tp, counts.fp, counts.fn) == (4, 0, 0)


def elephants(distance):
    """ELEPHANT's getNKeepAxials, integer by integer, and the server's limit."""
    whole = int(distance)
    floor = whole.bit_length() - 1
    ceil = int(distance - 1).bit_length()
    return min(4, floor if distance - 2**floor < 2**ceil - distance else ceil)


@pytest.mark.parametrize("distance", [1, 1.3, 1.9, 2, 2.5, 2.99, 3, 3.5, 4, 5.9, 6, 8, 11, 12, 16, 40])
def test_levels_without_depth_are_elephants(distance):
    assert flat_levels(distance) == elephants(distance)


def test_distances_below_one_keep_all_levels_deep():
    assert flat_levels(0.4) == 0


def elephant_forward(net, image, keep_axials):
    """The forward pass of elephant-server's UNet, poolings and enlargements as its `keep_axials` says."""
    x, skips = image, []
    for block, keep in zip(net.encoder, keep_axials, strict=True):
        x = block(x)
        skips.append(x)
        x = F.max_pool3d(x, (1, 2, 2) if keep else (2, 2, 2))
    x = net.base(x)
    for block, skip, keep in zip(net.decoder, skips[::-1], keep_axials[::-1], strict=True):
        up = F.interpolate(x, scale_factor=(1, 2, 2) if keep else (2, 2, 2), mode="nearest")
        x = block(torch.cat((skip, up), dim=1))
    return F.log_softmax(net.out_conv(x), dim=1)


@pytest.mark.parametrize("flat", range(5))
def test_network_is_elephants_for_every_distance(flat):
    net = UNet(base_channels=4, dims=3, flat_levels=flat)
    assert net.multiples == (2 ** (4 - flat), 16, 16)
    assert {n: v.shape for n, v in net.state_dict().items()} == {
        n: v.shape for n, v in UNet(base_channels=4, dims=3).state_dict().items()
    }
    image = torch.rand(1, 1, net.multiples[0], 32, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net(image), elephant_forward(net, image, [n < flat for n in range(4)]))


@pytest.mark.parametrize(("shape", "flat"), [((21, 66, 50), 0), ((7, 50, 100), 2), ((1, 40, 170), 4)])
def test_parts_equal_the_whole(shape, flat):
    net = UNet(base_channels=4, dims=3, flat_levels=flat)
    initialise(net, 3)
    noise = np.random.default_rng(0).random(shape, np.float32)
    image = np.asarray(noise * np.linspace(0.1, 1, shape[2], dtype=np.float32), np.float32)
    whole = probabilities(net, image)
    found = probabilities(net, image, tile=64)
    assert found.shape == whole.shape == (3, *shape)
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_loss_of_stacks():
    x = torch.randn(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.full((2, 5, 16, 16), -1)
    y[0, 1:4, 3:12, 3:12] = 0
    y[0, 2, 6:9, 6:9] = 1
    y[0, 2, 7, 7] = 2
    weights, shares = torch.tensor([1.0, 10.0, 10.0, 0.25]), (1 / 7, 5 / 7, 1 / 7)
    parts = segmentation_loss(F.log_softmax(x, 1), y, weights, shares)
    expected = F.nll_loss(F.log_softmax(x[:1], 1), y[:1], weights[:3], ignore_index=-1)
    torch.testing.assert_close(parts["nll"], expected)
    (parts["nll"] + parts["dice"]).backward(retain_graph=True)
    assert (x.grad[(y < 0)[:, None].expand_as(x)] == 0).all()
    x.grad = None
    parts["smooth"].backward()
    assert (x.grad != 0).float().mean() > 0.99


def test_an_even_centre_map_is_smooth_along_the_planes():
    flat = torch.full((1, 3, 8, 16, 16), 1 / 3).log()
    bumpy = flat.clone()
    bumpy[:, :, 4] = torch.tensor([0.05, 0.05, 0.9]).log().reshape(3, 1, 1)
    target, weights = torch.full((1, 8, 16, 16), -1), torch.ones(4)
    even, step = (segmentation_loss(x, target, weights, (0, 0, 1))["smooth"].item() for x in (flat, bumpy))
    assert even < step


def test_tuning_looks_around_labels_only(monkeypatch, make_config):
    label = np.full((4, 200, 300), -1, np.int32)
    label[1:3, 100:110, 150:160] = 1
    seen = []
    monkeypatch.setattr(
        tuning,
        "find_cells",
        lambda probability, _: seen.append(probability.shape) or np.zeros(probability.shape[1:], int),
    )
    tuning.best_thresholds(make_config(), [(np.zeros((3, *label.shape), np.float32), label)])
    assert set(seen) == {(3, 4, 74, 74)}
