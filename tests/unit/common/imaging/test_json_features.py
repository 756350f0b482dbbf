"""Features of a GeoJSON text one after the other: the same as `json.loads` finds, in a fraction of its memory."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.geojson import read_shapes
from cellsparse_common.imaging.json_features import read_features

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def features(text):
    return list(read_features(text if isinstance(text, bytes) else text.encode(), "label"))


@settings(max_examples=100)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.dictionaries(st.text(max_size=5).filter(lambda key: key not in ("type", "features")), VALUES, max_size=3),
    st.sampled_from([None, 0, 3]),
    st.booleans(),
    st.randoms(),
)
def test_the_same_as_the_whole_parsed_at_once(found, others, indent, ascii_only, random):
    members = [("features", found), ("type", "FeatureCollection"), *others.items()]
    random.shuffle(members)
    text = json.dumps(dict(members), indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    assert features(b" \r\n" + text + b"\n") == found
    assert features(b"\xef\xbb\xbf" + json.dumps(found, indent=indent).encode()) == found


@settings(max_examples=150)
@given(st.text('[]{},:" 1ae.', max_size=12), st.integers(0, 60))
def test_what_is_no_json_is_refused_as_json_refuses_it(junk, place):
    text = '{"type": "FeatureCollection", "features": [{"a": [1, 2.5]}, {}], "more": [{}]}'
    text = text[:place] + junk + text[place:]
    try:
        document = json.loads(text)
    except ValueError:
        with pytest.raises(InvalidArgument, match=r"truncated or broken|without features"):
            features(text)
        return
    if document.get("type") == "FeatureCollection" and isinstance(document.get("features"), list):
        assert features(text) == document["features"]


def test_one_feature_and_none():
    assert features('{"type": "Feature", "geometry": {"features": [1]}}') == [
        {"type": "Feature", "geometry": {"features": [1]}}
    ]
    for text in ("[]", '{"type": "FeatureCollection", "features": []}', '{"type": "FeatureCollection"}'):
        with pytest.raises(InvalidArgument, match="without features"):
            features(text)
    with pytest.raises(InvalidArgument, match="its type is 'X'"):
        features('{"type": "X", "features": [1]}')


def test_memory_is_that_of_the_shapes_and_not_of_the_parsed_text():
    """2000 cells as QuPath writes them: `json.loads` takes about 8 times their text."""
    ring = [[number + 0.25, 2 * number + 0.5] for number in range(10)]
    cell = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
    }
    text = json.dumps({"type": "FeatureCollection", "features": [cell] * 2000}).encode()
    peaks = []
    for read in (lambda: json.loads(text), lambda: read_shapes(text, "label")):
        tracemalloc.start()
        kept = read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert kept
    print(f"peak memory over the text: json.loads {peaks[0] / len(text):.1f}, read_shapes {peaks[1] / len(text):.1f}")
    assert peaks[1] < peaks[0] / 2
