"""The audit log: what was written is read, and any change is found where it begins."""

import pytest

from dhtos.errors import ConfigError
from dhtos.node.audit import NAME, AuditLog, read_audit


def written(directory, count=4):
    log = AuditLog(directory, lambda: 1000.5)
    for number in range(count):
        log.append("admitted", name=f"n{number}", serial=f"{number:016x}")
    return directory / NAME


def test_what_was_written_is_read(tmp_path):
    written(tmp_path)
    found = list(read_audit(tmp_path))
    assert [(e["number"], e["at"], e["what"], e["name"]) for e in found] == [
        (n + 1, 1000.5, "admitted", f"n{n}") for n in range(4)
    ]
    assert len({e["hash"] for e in found}) == 4


def test_it_goes_on_after_a_restart(tmp_path):
    written(tmp_path, 2)
    AuditLog(tmp_path, lambda: 2000.0).append("refused", reason="used up")
    assert [entry["number"] for entry in read_audit(tmp_path)] == [1, 2, 3]


def test_half_a_line_of_a_crash_does_not_count(tmp_path):
    path = written(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number":3,"at"')
    assert [entry["number"] for entry in read_audit(tmp_path)] == [1, 2]
    log = AuditLog(tmp_path, lambda: 0.0)
    assert path.read_bytes() == whole
    log.append("admitted", name="n3")
    assert [entry["number"] for entry in read_audit(tmp_path)] == [1, 2, 3]


def test_others_cannot_read_it(tmp_path):
    assert written(tmp_path).stat().st_mode & 0o077 == 0


def test_no_log_has_no_events(tmp_path):
    assert list(read_audit(tmp_path)) == []
    assert AuditLog(tmp_path, lambda: 0.0).entries() == []


@pytest.mark.parametrize("line", range(4))
@pytest.mark.parametrize("how", ["changed", "gone", "twice", "garbled", "cut"])
def test_a_change_is_found_where_it_begins(tmp_path, line, how):
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    match how:
        case "changed":
            lines[line] = lines[line].replace(b"n%d" % line, b"no")
        case "gone":
            del lines[line]
        case "twice":
            lines.insert(line, lines[line])
        case "garbled":
            lines[line] = b"\xff" + lines[line]
        case "cut":
            lines[line] = lines[line][:40] + b"\n"
    path.write_bytes(b"".join(lines))
    if how == "gone" and line == 3:
        assert len(list(read_audit(tmp_path))) == 3  # its end is known to whoever noted the hash
        return
    wrong = line + 2 if how == "twice" else line + 1
    with pytest.raises(ConfigError, match=f"line {wrong} does not follow"):
        list(read_audit(tmp_path))
    with pytest.raises(ConfigError, match="was changed"):
        AuditLog(tmp_path, lambda: 0.0)


def test_a_disk_that_takes_nothing_is_said(tmp_path):
    log = AuditLog(tmp_path / "gone", lambda: 0.0)
    with pytest.raises(ConfigError, match="cannot be written"):
        log.append("admitted")
