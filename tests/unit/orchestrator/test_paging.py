"""Page tokens and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.rules import violations
from cellsparse_orchestrator.catalogue.sparse_names import sparse_name
from cellsparse_orchestrator.paging import LARGEST, decode_token, encode_token, page_size
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2


@given(st.integers(0, LARGEST))
def test_tokens_come_back_and_pass_the_rules(position):
    token = encode_token("runs", position)
    assert decode_token("runs", token) == position
    assert not violations(common_pb2.PageRequest(page_token=token))


@pytest.mark.parametrize(
    "token", [encode_token("models", 3), encode_token("runs", LARGEST + 1), "?", "AAAA", "cnVuczp4", "é"]
)
def test_foreign_tokens_are_refused(token):
    with pytest.raises(InvalidArgument, match="page_token"):
        decode_token("runs", token)


def test_the_first_page():
    assert decode_token("runs", "") is None
    assert page_size(common_pb2.PageRequest()) == 50
    assert page_size(common_pb2.PageRequest(page_size=7)) == 7


@given(
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._ -]{0,99}\Z"),
    st.sampled_from([{"k": 65535}, {"total_cells": 10**9}, {"total_percent": 12.345678901}, {"total_percent": 1e-9}]),
    st.sampled_from([1, 2, 3, 4]),
)
def test_names_of_sparse_copies_are_names(source, amount, word):
    settings = sparsifier_pb2.SparsifySettings(mode=word, background=word, **amount)
    name = sparse_name(source, settings)
    request = dataset_pb2.CreateSparseDatasetRequest(dataset_id="x", name=name, settings=settings)
    assert not violations(request), name
