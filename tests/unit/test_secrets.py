from support.secrets import SECRETS, find_leaks


def test_leaks_are_found(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "server.log").write_bytes(b"fine\n\xff password=" + SECRETS[-1] + b"\n")
    (tmp_path / "note.txt").write_bytes(SECRETS[0])  # no log
    (leak,) = find_leaks(tmp_path)
    assert "password=" in leak
    (tmp_path / "home" / "server.log").unlink()  # the session's own look at its logs follows
