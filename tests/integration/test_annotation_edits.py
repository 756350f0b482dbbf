"""Annotations in store and database, of both kinds: edits by several authors agree with a model in numpy."""

import threading
import zlib
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.minio import running_minio

from cellsparse_common.errors import (
    Aborted,
    AlreadyExists,
    CellsparseError,
    InvalidArgument,
    NotFound,
    OutOfRange,
)
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.storage import FolderStore, keys, open_store
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.collection.collector import Collector, Rules
from cellsparse_orchestrator.collection.ledger import open_ledger
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.projects.aliases import Aliases
from cellsparse_orchestrator.projects.annotation import STEPS, Annotations
from cellsparse_orchestrator.projects.images import ImageAdder
from cellsparse_orchestrator.projects.label_numbers import KEEP, NEW, deflate, inflate
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_proto.v1 import common_pb2, project_pb2

HEIGHT, WIDTH = 700, 1100


class Bench:
    """One image with its annotation."""

    def __init__(self, database_url, store, shape=(HEIGHT, WIDTH)) -> None:
        self.database = Database(database_url)
        self.store = store
        self.projects = Projects(self.database, self.store)
        self.tiles = LabelTiles(self.database, self.store)
        self.annotations = Annotations(self.database, self.store, self.tiles)
        self.project = self.projects.add("bench")
        pixels = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape).astype(np.uint8)
        header = project_pb2.AddImageHeader(project_id=self.project.id, name="a.tif")
        adder = ImageAdder(self.database, self.store, 2**24)
        self.image = adder.add(header, encode_tiff(pixels, stack=len(shape) == 3))
        self.shape = shape

    def edit(self, *patches, base=2**40, author="a", request_id=""):
        request = project_pb2.EditAnnotationRequest(
            image_id=self.image.id, base_revision=base, author=author, request_id=request_id, patches=patches
        )
        return self.annotations.edit(request)

    def whole(self, level=0, layer=""):
        """The label numbers of plane 0 of a level."""
        height, width = -(-self.shape[-2] >> level), -(-self.shape[-1] >> level)
        found = np.zeros((height, width), np.uint32)
        for y in range(-(-height // 512)):
            for x in range(-(-width // 512)):
                answer = self.tile(x, y, level, layer)
                if answer.data:
                    part = inflate(answer.data, answer.height, answer.width)
                    found[y * 512 : y * 512 + answer.height, x * 512 : x * 512 + answer.width] = part
        return found

    def tile(self, x, y, level=0, layer="", plane=0):
        place = project_pb2.TilePlace(level=level, x=x, y=y, plane=plane)
        return self.tiles.get(project_pb2.GetLabelTileRequest(image_id=self.image.id, layer_id=layer, place=place))

    def cells(self):
        return self.annotations.cells(project_pb2.ListCellsRequest(image_id=self.image.id)).cells

    def objects(self):
        return list(self.store.list(keys.label_tiles_prefix(self.project.id, self.image.id)))


def patch(x, y, numbers, plane=0):
    numbers = np.asarray(numbers, np.uint32)
    return project_pb2.LabelPatch(
        x=x, y=y, plane=plane, width=numbers.shape[1], height=numbers.shape[0], data=deflate(numbers)
    )


@pytest.fixture
def bench(database_url, tmp_path):
    made = Bench(database_url, FolderStore(tmp_path / "store"))
    yield made
    made.database.close()


def full(number, height=20, width=20):
    return np.full((height, width), number, np.uint32)


def test_an_edit_over_four_tiles_is_seen_on_every_level_and_in_the_counts(bench):
    answer = bench.edit(patch(502, 502, full(NEW)), patch(0, 0, full(1, 4, 4)), base=0)
    assert (answer.revision, list(answer.new_labels)) == (1, [2])
    expected = np.zeros((HEIGHT, WIDTH), np.uint32)
    expected[502:522, 502:522], expected[:4, :4] = 2, 1
    assert bench.image.levels == 3
    for level in range(3):
        assert (bench.whole(level) == expected[:: 2**level, :: 2**level]).all()
    image = bench.projects.image(bench.image.id)
    assert (image.revision, image.cells, image.labelled_pixels) == (1, 1, 416)
    assert image.diameter == pytest.approx(2 * np.sqrt(400 / np.pi))
    (cell,) = bench.cells()
    assert cell == project_pb2.Cell(label=2, x=502, y=502, width=20, height=20, plane=0, planes=1, area=400)
    assert bench.tile(0, 0).revision == 1
    assert bench.tile(2, 0).revision == 0
    # The objects of a replaced tile, and of coarser tiles that show it, go away.
    before = len(bench.objects())
    bench.edit(patch(0, 0, full(0, 4, 4)))
    expected[:4, :4] = 0
    for level in range(3):
        assert (bench.whole(level) == expected[:: 2**level, :: 2**level]).all()
    assert len(bench.objects()) == before


def test_an_edit_on_a_tile_that_someone_else_changed_is_refused_whole(bench):
    assert bench.edit(patch(0, 0, full(NEW)), base=0, author="a").revision == 1
    with pytest.raises(Aborted, match=r"tile x=0, y=0.*revision 1, after base_revision 0; fetch it"):
        bench.edit(patch(600, 0, full(NEW)), patch(100, 100, full(1)), base=0, author="b")
    assert (bench.whole() > 0).sum() == 400
    # The author's own changes do not conflict, and other tiles neither.
    assert bench.edit(patch(30, 0, full(NEW)), base=0, author="a").revision == 2
    assert bench.edit(patch(600, 0, full(NEW)), base=0, author="b").revision == 3
    with pytest.raises(Aborted):
        bench.edit(patch(600, 0, full(0)), base=2, author="a")
    # Nobody's edits always count as someone else's.
    assert bench.edit(patch(0, 600, full(1)), base=3, author="").revision == 4
    with pytest.raises(Aborted):
        bench.edit(patch(0, 600, full(0)), base=3, author="")
    assert bench.edit(patch(0, 600, full(0)), base=4, author="").revision == 5


def test_a_repeated_request_makes_one_edit(bench):
    first = bench.edit(patch(0, 0, full(NEW)), base=0, request_id="one")
    assert bench.edit(patch(0, 0, full(NEW)), base=0, request_id="one") == first
    assert bench.projects.image(bench.image.id).revision == 1
    with pytest.raises(AlreadyExists, match="request_id 'one' made revision 1 with other content"):
        bench.edit(patch(0, 0, full(1)), base=0, request_id="one")


def test_bad_edits_change_nothing(bench):
    bench.edit(patch(0, 0, full(NEW)))
    before = (bench.projects.image(bench.image.id), bench.objects())
    bomb = project_pb2.LabelPatch(width=8, height=8, data=zlib.compress(bytes(2**24)))
    short = project_pb2.LabelPatch(width=8, height=8, data=zlib.compress(bytes(8 * 8 * 4 - 1)))
    cut = project_pb2.LabelPatch(
        width=20, height=20, data=deflate(np.arange(400, dtype=np.uint32).reshape(20, 20))[:-9]
    )
    trailing = project_pb2.LabelPatch(width=8, height=8, data=deflate(full(1, 8, 8)) + b"x")
    for bad, sentence in [
        (patch(0, 0, full(3)), r"patches\[0\] holds the label number 3, which no cell has; allowed: 0 to 2"),
        (patch(0, 0, full(NEW + 1)), "without gaps"),
        (patch(0, 0, full(KEEP - 1)), "without gaps"),
        (patch(WIDTH - 19, 0, full(1)), "the image ends at x 1100"),
        (patch(0, 0, full(1), plane=1), "plane 0"),
        (bomb, "does not hold 8 x 8 label numbers"),
        (short, "does not hold"),
        (cut, "does not hold|zlib"),
        (trailing, "does not hold"),
        (project_pb2.LabelPatch(width=8, height=8, data=b"junk"), "not compressed with zlib"),
    ]:
        with pytest.raises(InvalidArgument, match=sentence):
            bench.edit(patch(0, 0, full(1)), bad) if bad.width == 8 else bench.edit(bad)
    with pytest.raises(NotFound, match="no image 'im-none'"):
        bench.annotations.edit(project_pb2.EditAnnotationRequest(image_id="im-none", patches=[patch(0, 0, full(1))]))
    for place in ({"x": 3}, {"y": 2}, {"level": 3}, {"plane": 1}):
        with pytest.raises(OutOfRange):
            bench.tiles.get(project_pb2.GetLabelTileRequest(image_id=bench.image.id, place=place))
    assert (bench.projects.image(bench.image.id), bench.objects()) == before


def test_the_newest_hundred_edits_can_be_taken_back(bench):
    for index in range(STEPS + 3):
        bench.edit(patch(index, 0, full(NEW, 1, 1)))
    for _ in range(STEPS):
        assert bench.annotations.undo(bench.image.id, "a").patches
    nothing = bench.annotations.undo(bench.image.id, "a")
    assert (len(nothing.patches), nothing.revision) == (0, 2 * STEPS + 3)
    assert bench.whole()[0, :5].tolist() == [2, 3, 4, 0, 0]


class Model:
    """What edits, undo and redo do, on one array."""

    def __init__(self) -> None:
        self.now = np.zeros((HEIGHT, WIDTH), np.uint32)
        self.next = 2
        self.done: dict[str, list] = {}
        self.undone: dict[str, list] = {}

    def edit(self, author, pieces):
        before, new = self.now.copy(), 0
        for x, y, numbers in pieces:
            window = self.now[y : y + numbers.shape[0], x : x + numbers.shape[1]]
            real = numbers.astype(np.int64)
            placeholders = (numbers >= NEW) & (numbers != KEEP)
            new = max([new, *(real[placeholders] - NEW + 1).tolist()])
            real[placeholders] += self.next - NEW
            window[numbers != KEEP] = real[numbers != KEEP]
        self.next += new
        if (self.now != before).any() or new:
            changed = self.now != before
            self.done.setdefault(author, []).append((changed, before, self.now.copy()))
            self.undone[author] = []

    def step(self, author, source, target, undo):
        while source.get(author):
            changed, before, after = source[author].pop()
            there, then = (after, before) if undo else (before, after)
            mine = changed & (self.now == there)
            self.now[mine] = then[mine]
            target.setdefault(author, []).append((mine, before, after))
            if mine.any():
                return

    def undo(self, author):
        self.step(author, self.done, self.undone, True)

    def redo(self, author):
        self.step(author, self.undone, self.done, False)


@pytest.mark.parametrize("seed", range(3))
def test_random_edits_by_two_authors_agree_with_the_model(bench, seed):
    random = np.random.default_rng(seed)
    model = Model()
    for _ in range(60):
        author = str(random.choice(["a", "b"]))
        kind = random.choice(["edit", "undo", "redo"], p=[0.5, 0.3, 0.2])
        if kind == "edit":
            pieces = []
            for index in range(random.integers(1, 3)):
                height, width = random.integers(1, 30, 2)
                x, y = random.integers(490, 515), random.integers(490, 515)
                choices = [0, 1, KEEP, NEW + index, int(random.integers(0, model.next))]
                numbers = random.choice(choices, (height, width)).astype(np.uint32)
                numbers[0, 0] = NEW + index  # so that placeholders have no gaps
                pieces.append((int(x), int(y), numbers))
            model.edit(author, pieces)
            bench.edit(*(patch(*piece) for piece in pieces), author=author)
        elif kind == "undo":
            model.undo(author)
            _check_patches(bench.annotations.undo(bench.image.id, author).patches, model.now)
        else:
            model.redo(author)
            _check_patches(bench.annotations.redo(bench.image.id, author).patches, model.now)
    found = bench.whole()
    assert (found == model.now).all()
    assert (bench.whole(1) == model.now[::2, ::2]).all()
    image = bench.projects.image(bench.image.id)
    assert image.cells == len(np.unique(model.now[model.now > 1]))
    assert image.labelled_pixels == np.count_nonzero(model.now)
    for cell in bench.cells():
        ys, xs = (model.now == cell.label).nonzero()
        assert (cell.x, cell.y, cell.width, cell.height, cell.area) == (
            xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1, len(xs)
        )  # fmt: skip
    assert [cell.label for cell in bench.cells()] == np.unique(model.now[model.now > 1]).tolist()


def _check_patches(patches, now):
    for each in patches:
        numbers = inflate(each.data, each.height, each.width)
        assert (now[each.y : each.y + each.height, each.x : each.x + each.width] == numbers).all()


def test_readers_meet_whole_tiles_while_someone_edits(bench):
    """An edit removes the tile that it replaced: whoever was about to read it reads the new one."""
    ended = threading.Event()
    seen, failed = [], []

    def read():
        try:
            while not ended.is_set():
                for level in range(3):
                    answer = bench.tile(0, 0, level)
                    if answer.data:
                        part = inflate(answer.data, answer.height, answer.width)
                        seen.append(len(np.unique(part[: 40 >> level, : 40 >> level])))
        except Exception as error:  # noqa: BLE001 - whatever it is fails the test
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(40):
        bench.edit(patch(0, 0, full(NEW, 40, 40)))
    ended.set()
    for reader in readers:
        reader.join()
    assert not failed
    assert set(seen) == {1}


def test_annotations_in_an_object_store(database_url, tmp_path_factory):
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        server.client().make_bucket("bucket")
        bench = Bench(database_url, open_store(server.settings("s3://bucket/lab")))
        bench.edit(patch(500, 500, full(NEW)))
        bench.edit(patch(505, 505, full(1)), author="b")
        bench.annotations.undo(bench.image.id, "b")
        expected = np.zeros((HEIGHT, WIDTH), np.uint32)
        expected[500:520, 500:520] = 2
        for level in range(3):
            assert (bench.whole(level) == expected[:: 2**level, :: 2**level]).all()
        bench.projects.remove(bench.project.id)
        collect(bench, tmp_path_factory.mktemp("ledger"))
        assert list(bench.store.list(keys.PROJECTS)) == []
        bench.database.close()


def collect(bench, folder):
    """Collect what was deleted, as if its grace time were over."""
    rules = Rules(now=now() + timedelta(seconds=1), grace=timedelta(0), wait=timedelta(0), checkpoint_days=30)
    with open_ledger(folder) as ledger:
        list(Collector(bench.store, bench.database, ledger, rules).run())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_drawn_edits_are_made_or_refused_with_a_sentence(bench, data):
    integer = st.sampled_from([0, 1, 2, 700, 1099, 1100, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
    raw = st.binary(max_size=64) | st.binary(max_size=64).map(zlib.compress)
    number = st.sampled_from([0, 1, 2, NEW, NEW + 1, KEEP, KEEP - 1, 5000])
    good = st.builds(lambda fill: deflate(full(fill, 4, 4)), number)
    patches = data.draw(
        st.lists(
            st.builds(
                project_pb2.LabelPatch,
                x=integer,
                y=integer,
                width=st.just(4) | integer,
                height=st.just(4) | integer,
                plane=st.just(0) | integer,
                data=good | raw,
            ),
            max_size=3,
        )
    )
    before = bench.projects.image(bench.image.id).revision
    try:
        assert bench.edit(*patches).revision - before in (0, 1)
    except CellsparseError as error:
        assert isinstance(error, InvalidArgument)  # noqa: PT017
        assert bench.projects.image(bench.image.id).revision == before


def test_an_alias_of_any_name_is_found_again(bench):
    aliases = Aliases(bench.database)
    for model in ("run-1", "run-2"):
        aliases.set(project_pb2.Alias(backend="unet", name="a\0 \N{MICRO SIGN}", model_id=model))
        assert aliases.get("unet", "a\0 \N{MICRO SIGN}").model_id == model
    aliases.remove("unet", "a\0 \N{MICRO SIGN}")
    with pytest.raises(NotFound):
        aliases.get("unet", "a\0 \N{MICRO SIGN}")


def test_projects_and_images_are_listed_renamed_and_deleted(bench, tmp_path):
    header = project_pb2.AddImageHeader(project_id=bench.project.id, name="a.tif")
    adder = ImageAdder(bench.database, bench.store, 2**24)
    second = adder.add(header, encode_tiff(np.zeros((10, 12, 3), np.float32)))
    assert (second.name, second.dtype, second.channels, second.levels) == ("a (2).tif", "uint16", 3, 1)
    page = common_pb2.PageRequest(page_size=1)
    images, token = bench.projects.images_page(bench.project.id, page)
    assert images == [bench.image]
    page.page_token = token
    assert bench.projects.images_page(bench.project.id, page) == ([second], "")
    assert bench.projects.rename(bench.project.id, "x\0y").name == "x\N{REPLACEMENT CHARACTER}y"
    bench.edit(patch(0, 0, full(NEW)))
    found = bench.projects.get(bench.project.id)
    assert (found.images, found.annotated_images, found.cells, found.runs) == (2, 1, 1, 0)
    bench.projects.remove_image(second.id)
    with pytest.raises(NotFound):
        bench.projects.image(second.id)
    bench.projects.remove(bench.project.id)
    assert list(bench.store.list(keys.PROJECTS))
    collect(bench, tmp_path)
    assert list(bench.store.list(keys.PROJECTS)) == []
    with pytest.raises(NotFound):
        bench.projects.get(bench.project.id)
