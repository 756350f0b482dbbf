import pytest

from cellsparse_stardist.cpu_bfloat16 import _claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_bf16 sse\n", True),
        ("flags : amx_bf16 amx_tile\n", True),
        ("flags : avx512f avx512bw\n", False),
        ("model name : avx512_bf16\nflags : sse\n", False),
        ("Features : asimd\n", False),
    ],
)
def test_a_cpu_that_would_emulate_bfloat16_does_not_claim_it(tmp_path, text, claims):
    (tmp_path / "cpuinfo").write_text(text)
    assert _claims(tmp_path / "cpuinfo") is claims


def test_without_a_list_of_instructions_there_is_no_claim(tmp_path):
    assert not _claims(tmp_path / "missing")
