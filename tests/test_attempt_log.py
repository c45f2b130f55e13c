"""What is kept of an attempt's log."""

import logging

from taxiway.attempt_log import AttemptLog


def test_the_first_and_the_last_lines_are_kept_and_the_gap_is_said():
    shared = logging.getLogger("test.attempt")
    shared.setLevel(logging.INFO)
    kept = AttemptLog()
    log = kept.logger(shared)
    for number in range(5_000):
        log.info("line %d %s", number, "x" * 60)
    lines = kept.text().splitlines()
    assert "line 0 " in lines[0]
    assert "line 4999 " in lines[-1]
    assert [line for line in lines if "left out" in line] == [f"... {5_000 - len(lines) + 1} lines are left out here"]
    assert 190_000 < len(kept.text()) < 210_000


def test_lines_go_on_to_the_shared_logger_and_others_stay_out(caplog):
    shared = logging.getLogger("test.attempt")
    caplog.set_level(logging.INFO, "test.attempt")
    one, two = AttemptLog(), AttemptLog()
    one.logger(shared).info("of one")
    two.logger(shared).info("of two")
    shared.info("of nobody")
    assert [r.getMessage() for r in caplog.records] == ["of one", "of two", "of nobody"]
    assert one.text().endswith("INFO of one\n")
    assert one.text().count("\n") == 1


def test_one_enormous_line_is_cut():
    kept = AttemptLog()
    kept.logger(logging.getLogger("test.attempt")).warning("%s", "y" * 1_000_000)
    assert len(kept.text()) < 200_001
