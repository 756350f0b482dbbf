"""The log of a service as a child process."""

from cellsparse_orchestrator.launchers import child


def test_a_long_log_is_moved_while_its_service_writes_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_LOG_LIMIT", 10)
    log, older = tmp_path / "unet.log", tmp_path / "unet.log.1"
    child.trim_log(log)  # there is none yet
    with log.open("ab", buffering=0) as service:
        service.write(b"short")
        child.trim_log(log)
        assert (log.read_bytes(), older.exists()) == (b"short", False)
        service.write(b" and longer")
        child.trim_log(log)
        service.write(b"new")
    assert (log.read_bytes(), older.read_bytes()) == (b"new", b"short and longer")
