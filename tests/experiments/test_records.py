"""What runs leave behind: their learning curves."""

from types import SimpleNamespace

from lib.experiments import records


def test_learning_curves_hold_what_lies_between_validations(tmp_path):
    log = "step,loss,validation_loss\n1,3.0,\n2,1.0,0.5\n3,nan,\n4,-1.0,\n5,-2.0,-0.5\n6,9.0,\n"
    (tmp_path / "log.csv").write_text(log)
    curves = records.learning_curves(None, [("scratch", 0, 4, None, SimpleNamespace(folder=tmp_path))])
    found = curves.pivot(index="step", columns="metric", values="value")
    assert found["loss"].to_dict() == {2: 2.0, 5: -1.5} and found["validation_loss"].to_dict() == {2: 0.5, 5: -0.5}
