from __future__ import annotations

from taxiway.integrations.local.logs import OutputLog, follow, last_lines


def test_lines_carry_time_and_source(tmp_path):
    log = OutputLog(tmp_path / "service.log")
    log.write("aaa", "one\ntwo")
    first, second = last_lines(log.path, 10)
    assert first.endswith("Z aaa | one")
    assert second.endswith("Z aaa | two")


def test_a_log_is_bounded(tmp_path):
    log = OutputLog(tmp_path / "service.log", limit=10_000)
    for number in range(2_000):
        log.write("aaa", f"{number} " + "x" * 20)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 25_000
    assert [line.split()[3] for line in last_lines(log.path, 150)] == [str(n) for n in range(1850, 2000)]


def test_a_line_is_bounded(tmp_path):
    log = OutputLog(tmp_path / "service.log")
    log.write("aaa", "x" * 1_000_000)
    assert log.path.stat().st_size < 10_000


def test_following_goes_on_over_a_rotation(tmp_path):
    log = OutputLog(tmp_path / "service.log", limit=300)
    log.write("aaa", "before")
    seen = []
    coming = follow(log.path, lambda: len(seen) == 50, every_s=0.0)
    for number in range(50):
        log.write("aaa", str(number))
        seen.append(next(coming).rpartition("| ")[2])
    assert seen == [str(n) for n in range(50)]
    assert list(coming) == []


def test_a_log_that_is_not_there_yet(tmp_path):
    log = OutputLog(tmp_path / "service.log")
    assert last_lines(log.path, 5) == []
    coming = follow(log.path, lambda: True, every_s=0.0)
    assert list(coming) == []


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path):
    OutputLog(tmp_path / "not" / "there" / "service.log").write("aaa", "lost")
