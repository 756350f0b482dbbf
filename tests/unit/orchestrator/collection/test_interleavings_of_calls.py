"""Strokes, predictions, prompters and collections in any order, killed anywhere: what is needed stays, all else goes.

The real code of these calls works on a store that lets a collection go on in the middle of a call, and that may end
the call there as `kill -9` does: nothing of it runs any more.
"""

import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select
from unit.orchestrator.collection.test_interleavings import WHICH, World, empty_database

from cellsparse_common.datasets import put_blob
from cellsparse_common.storage import keys
from cellsparse_orchestrator.catalogue.prompter_uploads import PrompterUpload
from cellsparse_orchestrator.catalogue.prompters import Prompters
from cellsparse_orchestrator.catalogue.transfers import Transfers
from cellsparse_orchestrator.db.tables import LabelTileRow, LayerRow, ProjectImageRow, ProjectRow, PrompterRow
from cellsparse_orchestrator.projects.annotation import Annotations
from cellsparse_orchestrator.projects.label_numbers import deflate
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.layers import Layers, Predictor
from cellsparse_orchestrator.projects.tiling import TILE
from cellsparse_proto.v1 import project_pb2, prompter_pb2, trainer_pb2

__all__ = ["empty_database"]

HEIGHT, WIDTH = 8, 3 * TILE
"""Three tiles, and a coarse one of level 2 that shows them all and is kept."""
KILLED_AFTER = st.none() | st.integers(0, 3)
"""Operations of the store after which a call is killed."""


class Killed(BaseException):
    """The process of a call is gone."""


class Interrupted:
    """A store in whose operations a collection goes on, and a call may end."""

    def __init__(self, world):
        self._world = world
        self._lock = threading.Lock()
        self.left = None
        """Operations until the call is killed; None: it is not."""
        self.collects = False
        """Whether a whole collection follows every operation."""

    def __getattr__(self, name):
        return getattr(self._world.store, name)

    def put(self, key, data):
        self._step(lambda: self._world.store.put(key, data))

    def delete(self, key):
        self._step(lambda: self._world.store.delete(key))

    def _step(self, operation):
        with self._lock:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            operation()
            if self.collects and self._world.collection is None:
                self._world.begin_collection(False)
            self._world.collect_on(1000 if self.collects else 2)


class Calls(World):
    kinds = ("datasets",)

    def __init__(self):
        super().__init__()
        self.interrupted = Interrupted(self)
        self.transfer = None
        """Key of the image of the prediction that is under way."""
        self.scratch = Path(self.folder.name)

    @initialize()
    def make_image(self):
        sha256 = put_blob(self.store, b"image")
        with self.database.write() as session:
            session.add(ProjectRow(id="pr-1", name="p", created_at=self.now))
            session.flush()
            size = {"height": HEIGHT, "width": WIDTH, "planes": 1, "channels": 1}
            texts = {"dtype": "uint8", "contrast": "[]", "spacing": "[]"}
            image = ProjectImageRow(
                id="im-1", project_id="pr-1", name="i", created_at=self.now, sha256=sha256, **size, **texts
            )
            session.add(image)
        self.restart()

    def restart(self):
        """Nothing in memory outlives a kill."""
        tiles = LabelTiles(self.database, self.interrupted)
        self.annotations = Annotations(self.database, self.interrupted, tiles)
        self.label_tiles = tiles
        self.layers = Layers(self.database, self.interrupted)
        self.prompters = Prompters(self.database, self.interrupted)
        self.transfers = Transfers(self.interrupted)

    @rule(collects=st.booleans())
    def collect_at_every_step(self, collects):
        self.interrupted.collects = collects

    def call(self, killed_after, function, *arguments):
        self.interrupted.left = killed_after
        try:
            function(*arguments)
        except Killed:
            self.restart()
        finally:
            self.interrupted.left = None

    @rule(x=st.integers(0, 2), number=st.integers(0, 1), killed_after=KILLED_AFTER)
    def draw(self, x, number, killed_after):
        numbers = np.full((2, 2), number, np.uint32)
        patch = project_pb2.LabelPatch(x=x * TILE, y=0, width=2, height=2, data=deflate(numbers))
        request = project_pb2.EditAnnotationRequest(image_id="im-1", author="a", base_revision=10**6, patches=[patch])
        self.call(killed_after, self.annotations.edit, request)

    @rule(level=st.sampled_from([1, 2]), layer=WHICH, killed_after=KILLED_AFTER)
    def look(self, level, layer, killed_after):
        layers = ["", *self.all_ids(LayerRow)]
        request = project_pb2.GetLabelTileRequest(image_id="im-1", layer_id=layers[layer % len(layers)])
        request.place.level = level
        self.call(killed_after, self.label_tiles.get, request)

    @rule(model=st.sampled_from(["m1", "m2"]), cell=st.integers(0, WIDTH - 1), killed_after=KILLED_AFTER)
    def predict_layer(self, model, cell, killed_after):
        labels = np.zeros((HEIGHT, WIDTH), np.int32)
        labels[2, cell] = 1
        self.call(killed_after, self.layers.save, "im-1", Predictor(model_id=model), labels, np.array([0.0, 0.5]))

    @rule(which=WHICH, killed_after=KILLED_AFTER)
    def remove_layer(self, which, killed_after):
        if layers := self.all_ids(LayerRow):
            self.call(killed_after, self.layers.remove, layers[which % len(layers)])

    @rule(name=st.sampled_from(["p1", "p2"]), killed_after=KILLED_AFTER)
    def add_prompter(self, name, killed_after):
        for part in ("encoder", "decoder"):
            (self.scratch / part).write_bytes(b"weights")
        header = prompter_pb2.AddPrompterHeader(name=name, licence="none")
        upload = PrompterUpload(
            header=header,
            encoder=self.scratch / "encoder",
            decoder=self.scratch / "decoder",
            encoder_size=7,
            decoder_size=7,
        )
        if name in self.all_ids(PrompterRow, PrompterRow.name):
            self.call(killed_after, self.prompters.remove, name)
        else:
            self.call(killed_after, self.prompters.add, upload)

    @precondition(lambda self: self.transfer is None)
    @rule(killed_after=KILLED_AFTER, days=st.sampled_from([0.0, 0.9]))
    def predict_large_image(self, killed_after, days):
        def answer(sent):
            self.transfer = keys.transfer(sent.transfer_id, "image")
            for _ in range(3):  # collections come and go, as many as there are in so long a call
                self.now += timedelta(days=days / 3)
                if self.collection is None:
                    self.begin_collection(False)
                self.collect_on(1000)
                assert self.store.exists(self.transfer), "the image of a prediction under way is gone"
            self.store.put(keys.transfer(sent.transfer_id, "result"), b"labels")
            return trainer_pb2.PredictResponse()

        request = trainer_pb2.PredictRequest(image=b"large")
        self.call(killed_after, self.transfers.predict_data, request, answer)
        self.transfer = None

    @invariant()
    def nothing_needed_is_gone(self):
        for key in self.needed():
            assert self.store.exists(key), key

    def nothing_else_is_left(self):
        found = [key for key in self.store.list("") if not key.startswith(keys.installation())]
        coarse = [key for key in found if (tile := keys.parse_label_tile(key)) and tile.level]
        assert set(found) - set(coarse) == self.needed()
        places = [key.rpartition("/")[0] for key in coarse]
        assert len(places) == len(set(places)), "of a coarse tile there are several"
        layers = {"", *self.all_ids(LayerRow)}
        assert {keys.parse_label_tile(key).layer_id for key in coarse} <= layers

    def needed(self):
        """Keys that rows refer to."""
        with self.database.read() as session:
            tiles = list(session.execute(select(LabelTileRow.layer_id, LabelTileRow.object)).tuples())
            blobs = list(session.scalars(select(ProjectImageRow.sha256)))
            prompters = list(session.scalars(select(PrompterRow.id)))
        return {
            *(keys.label_tile("pr-1", "im-1", layer_id, name) for layer_id, name in tiles if name),
            *(keys.blob(sha256) for sha256 in blobs),
            *(keys.prompter_file(each, part) for each in prompters for part in ("encoder", "decoder")),
        }

    def all_ids(self, table, column=None):
        with self.database.read() as session:
            return list(session.scalars(select(column if column is not None else table.id).order_by(table.number)))


def test_any_order_of_calls_and_kills_loses_nothing_and_leaves_nothing(empty_database):
    World.empty = empty_database
    run_state_machine_as_test(Calls, settings=settings(max_examples=15, stateful_step_count=25))


@pytest.mark.parametrize("killed_after", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("collects", [False, True])
def test_every_call_killed_at_every_step(killed_after, collects, empty_database):
    World.empty = empty_database
    world = Calls()
    world.own_the_store(0)
    world.make_image()
    world.collect_at_every_step(collects)
    for end in (None, killed_after):
        for number in (1, 0, 1):
            world.draw(0, number, end)
            world.nothing_needed_is_gone()
            world.look(2, 0, end)
        world.predict_layer("m1", 3, end)
        world.look(2, 1, end)
        world.predict_layer("m1", TILE, end)
        world.nothing_needed_is_gone()
        world.look(2, 1, end)
        world.add_prompter("p1", end)
        world.nothing_needed_is_gone()
        world.predict_large_image(end, 0.0)
    world.remove_layer(0, killed_after)
    world.teardown()


def test_what_a_long_collection_finds_at_its_end_is_not_taken_for_old(empty_database):
    World.empty = empty_database
    world = Calls()
    world.own_the_store(0)
    world.make_image()
    world.begin_collection(False)
    world.wait(4.0)
    world.predict_large_image(None, 0.0)  # its image is found by that collection, and then by the next
    world.teardown()
