import os
from types import SimpleNamespace

import pytest
from support.tiny_sam import sha256

from cellsparse_common.errors import FailedPrecondition, Unavailable
from cellsparse_gateway.prompts.weight_cache import WeightCache
from cellsparse_proto.v1 import prompter_pb2

ENCODER = prompter_pb2.PROMPTER_PART_ENCODER


class Files:
    """An orchestrator that has files by the names of prompters."""

    def __init__(self, **files):
        self.files, self.asked = files, []
        self.prompters = SimpleNamespace(GetPrompterFile=self._get)

    def _get(self, request, timeout):
        self.asked.append(request.name)
        answer = prompter_pb2.GetPrompterFileResponse
        parts = iter([answer(header=prompter_pb2.PrompterFile()), answer(chunk=self.files[request.name])])

        class Call:
            def __iter__(self):
                return parts

            def cancel(self): ...

        return Call()


def what(data):
    return prompter_pb2.PrompterFile(sha256=sha256(data), size=len(data))


def test_a_file_is_fetched_once_and_again_if_it_is_broken(tmp_path):
    files = Files(a=b"a" * 100)
    cache = WeightCache(files, tmp_path / "weights", 1000)
    for _ in range(2):
        assert cache.read("a", ENCODER, what(b"a" * 100)) == b"a" * 100
    assert files.asked == ["a"]
    (path,) = (tmp_path / "weights").iterdir()
    path.write_bytes(b"x")
    assert cache.read("a", ENCODER, what(b"a" * 100)) == b"a" * 100
    assert files.asked == ["a", "a"]


def test_a_file_with_another_hash_is_not_kept(tmp_path):
    cache = WeightCache(Files(a=b"forged"), tmp_path, 1000)
    with pytest.raises(Unavailable, match="came broken"):
        cache.read("a", ENCODER, what(b"true"))
    assert list(tmp_path.iterdir()) == []


def test_the_files_used_longest_ago_go(tmp_path):
    files = Files(a=b"a" * 40, b=b"b" * 40, c=b"c" * 40)
    cache = WeightCache(files, tmp_path, 100)
    for name in "ab":
        cache.read(name, ENCODER, what(files.files[name]))
    os.utime(tmp_path / f"{sha256(b'b' * 40)}.onnx", (1, 1))
    cache.read("c", ENCODER, what(b"c" * 40))
    assert {path.name for path in tmp_path.iterdir()} == {f"{sha256(files.files[name])}.onnx" for name in "ac"}
    with pytest.raises(FailedPrecondition, match="CELLSPARSE_GATEWAY_WEIGHTS_MIB"):
        cache.read("large", ENCODER, prompter_pb2.PrompterFile(sha256="0" * 64, size=101))
