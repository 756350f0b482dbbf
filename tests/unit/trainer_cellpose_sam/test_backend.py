"""Training: resumed bit by bit, from weights that people bring, on labelled pixels only."""

import dataclasses

import numpy as np
import pytest
import torch
from support.poisoned_training import check_poisoned_run
from unit.trainer_cellpose_sam.sam_samples import disc_sample, tiny_config

from cellsparse_cellpose_sam import backend
from cellsparse_cellpose_sam.config import resolve
from cellsparse_cellpose_sam.data import Sampler
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.training import STATE_FILE
from cellsparse_trainer.distributed.ranks import Ranks


def state(training, folder):
    folder.mkdir()
    training.save(folder)
    return torch.load(folder / STATE_FILE, weights_only=True)["network"]


@pytest.mark.parametrize(("trainable", "layer_drop"), [("lora", 0.0), ("all", 0.5)])
def test_interrupted_and_resumed_is_bit_equal_to_uninterrupted(tmp_path, trainable, layer_drop):
    config, samples = tiny_config(trainable=trainable, layer_drop=layer_drop), [disc_sample()]
    whole = backend.create(config, samples, "cpu")
    losses = [whole.train_step(step) for step in range(4)]
    part = backend.create(config, samples, "cpu")
    for step in range(2):
        part.train_step(step)
    (tmp_path / "half").mkdir()
    part.save(tmp_path / "half")
    rest = backend.create(config, samples, "cpu")
    rest.load(tmp_path / "half")
    assert [rest.train_step(step) for step in range(2, 4)] == losses[2:]
    first, second = state(whole, tmp_path / "first"), state(rest, tmp_path / "second")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_falls_and_a_checkpoint_opens_as_a_model(tmp_path):
    config = tiny_config(trainable="all")
    config = dataclasses.replace(config, plan=dataclasses.replace(config.plan, learning_rate=1e-3, warmup_steps=0))
    training = backend.create(config, [disc_sample()], "cpu")
    losses = [training.train_step(step)["loss"] for step in range(6)]
    assert losses[-1] < losses[0]
    training.save(tmp_path)
    opened = backend.open_checkpoint(tmp_path, "cpu")
    image = disc_sample().image
    np.testing.assert_array_equal(opened.predict(image), training.model().predict(image))


def test_the_stock_network_needs_weights_that_somebody_brings():
    config = resolve(trainer_pb2.TrainingSettings(cellpose_sam={}), 1)
    with pytest.raises(InvalidArgument, match="trains from weights that you bring: import a Cellpose-SAM model"):
        backend.create(config, [disc_sample()], "cpu")


def test_a_model_is_where_another_training_begins(tmp_path):
    first = backend.create(tiny_config(trainable="all"), [disc_sample()], "cpu")
    first.train_step(0)
    first.model().export(tmp_path)
    second = backend.create(tiny_config(), [disc_sample()], "cpu", tmp_path)
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(second.network.eval()(image)[0], first.network.eval()(image)[0])


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(tmp_path):
    check_poisoned_run(backend, tiny_config(), [disc_sample()], tmp_path)


def test_images_without_a_labelled_cell_are_refused():
    sample = disc_sample()
    bare = dataclasses.replace(sample, label=np.full_like(sample.label, -1))
    with pytest.raises(InvalidArgument, match="None of the 1 training images has a labelled cell"):
        backend.create(tiny_config(), [bare], "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_asked_for_and_missing_is_an_error():
    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(tiny_config(), [disc_sample()], "cuda")


def test_bfloat16_is_refused_on_a_cpu_without_it(monkeypatch):
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: False)
    config = tiny_config()
    config = dataclasses.replace(config, plan=dataclasses.replace(config.plan, precision="bfloat16"))
    with pytest.raises(InvalidArgument, match="precision is BFLOAT16, but this CPU does not compute in it"):
        backend.create(config, [disc_sample()], "cpu")


def test_batches_follow_from_seed_and_step_and_ranks_share_the_crops():
    config, samples = tiny_config(), [disc_sample()]
    config = dataclasses.replace(config, plan=dataclasses.replace(config.plan, batch_size=2))
    whole = Sampler(samples, config).batch(3)
    again = Sampler(samples, config).batch(3)
    for name in ("image", "label", "flow"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    single = dataclasses.replace(config, plan=dataclasses.replace(config.plan, batch_size=1, processes_per_node=2))
    parts = [Sampler(samples, single, Ranks(rank=rank, world=2, local_rank=rank)).batch(3) for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate([part.image for part in parts]), whole.image)


def test_crops_show_labels_and_nothing_outside_the_image_is_labelled():
    sampler = Sampler([disc_sample()], tiny_config(likely_background=0.0, scale_range=0.0))
    for step in range(8):
        batch = sampler.batch(step)
        assert (batch.label >= 0).any()
        assert set(np.unique(batch.label)) <= {-1, 0, 1}
        assert (batch.image[:, 1:] == 0).all()
        length = np.hypot(*batch.flow[0])
        assert (length[batch.label[0] < 1] < 1.01).all()


def test_versions_name_what_decides_the_numbers():
    assert backend.versions().keys() == {"cellpose", "segment-anything", "torch", "numpy"}
    assert backend.versions()["cellpose"].startswith("4.2")


def test_colours_shift_only_where_there_are_channels():
    config, one = tiny_config(), disc_sample()
    colours = dataclasses.replace(one, image=np.stack([one.image, one.image], axis=-1))

    def image(sample, **plan):
        return (
            Sampler([sample], dataclasses.replace(config, plan=dataclasses.replace(config.plan, **plan))).batch(0).image
        )

    plain, shifted = image(colours, channels=(0, 1)), image(colours, channels=(0, 1), colour_shift=0.2)
    np.testing.assert_array_equal(plain[:, 0], plain[:, 1])
    assert np.abs(shifted[:, 0] - shifted[:, 1]).max() > 0.01
    assert not shifted[:, 2].any()
    np.testing.assert_array_equal(image(one, colour_shift=0.2), image(one))
