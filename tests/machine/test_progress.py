import time

from lib.machine import progress


def test_a_kept_log_is_not_filled_by_a_bar(capsys, monkeypatch):
    monkeypatch.setitem(progress.SHOWN, "delay", 0.0)
    update = progress.bar("pre-training", 50)
    for step in range(50):
        time.sleep(0.01)
        update(step + 1, loss=-1.0)
    drawn = capsys.readouterr().err.split("\r")
    assert "50/50" in drawn[-1] and "loss=-1.00" in drawn[-1]
    assert len(drawn) < 5
