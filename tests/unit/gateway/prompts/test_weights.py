import pytest
from pydantic import ValidationError

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.weights import own_prompters
from cellsparse_gateway.settings import GatewaySettings


def test_without_weights_there_is_no_further_prompter():
    assert own_prompters(GatewaySettings()) == []


def test_files_that_are_no_models_are_refused_at_the_start(tmp_path):
    for name in ("encoder.onnx", "decoder.onnx"):
        (tmp_path / name).write_bytes(b"junk")
    settings = GatewaySettings(
        sam_encoder=tmp_path / "encoder.onnx", sam_decoder=tmp_path / "decoder.onnx", sam_licence="MIT"
    )
    with pytest.raises(InvalidArgument, match=r"encoder.onnx is no ONNX file"):
        own_prompters(settings)


@pytest.mark.parametrize(
    "given", [{"sam_licence": "MIT"}, {"sam_encoder": "a.onnx", "sam_decoder": "b.onnx"}, {"sam_encoder": "a.onnx"}]
)
def test_files_and_licence_come_together(given):
    with pytest.raises(ValidationError, match="must be given together"):
        GatewaySettings(**given)
