"""Files of a zip, as they were meant (they are paired as in `tests/unit/common/pairing`)."""

import io
import zipfile

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.zip_members import count_members
from cellsparse_common.pairing.pairs import pair_files
from cellsparse_gateway.dataset_zip import find_members, upload_zip
from cellsparse_gateway.zip_files import open_zip
from cellsparse_proto.v1 import dataset_pb2


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    file.seek(0)
    return file


def test_names_of_other_programs_are_understood():
    with zipfile.ZipFile(zipped("masks\\a.tif", "images/", "images/a.tif")) as archive:
        assert find_members(archive) == {"masks/a.tif": "masks\\a.tif", "images/a.tif": "images/a.tif"}
    meant = "images/M\xe4use.tif"
    file = zipped("images/M__use.tif")  # macOS writes UTF-8 without the flag that says so
    raw = file.getvalue().replace(b"M__use", "M\xe4use".encode())
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = find_members(archive)
        assert members.keys() == {meant}
        assert archive.read(members[meant]) == b"x"


def test_files_of_macs_are_left_out():
    names = ["set/images/a.tif", "set/masks/a.tif", "__MACOSX/set/images/._a.tif", "set/images/.DS_Store"]
    with zipfile.ZipFile(zipped(*names)) as archive:
        found = pair_files(find_members(archive))
    assert [(pair.name, pair.split, pair.label) for pair in found.pairs] == [("a", "train", "set/masks/a.tif")]
    assert found.left_out == {}


@pytest.mark.parametrize("names", [[], ["a.tif"], ["images/a.tif", "masks/b.tif"]])
def test_no_pair_is_one_sentence(names):
    with pytest.raises(InvalidArgument, match="No image in the zip has a label file"):
        upload_zip(None, dataset_pb2.DatasetHeader(name="x"), zipped(*names))


def test_a_zip_of_too_many_files_is_refused_before_they_are_listed():
    entry = b"PK\x01\x02" + bytes(42)
    with pytest.raises(InvalidArgument, match="more than 50000 files"), open_zip(io.BytesIO(entry * 50_001)):
        pass


def test_entries_are_counted_across_the_parts_that_are_read():
    entry = b"PK\x01\x02" + bytes(42)
    for shift in range(4):
        assert count_members(io.BytesIO(bytes(2**20 - shift) + entry * 3)) == 3
