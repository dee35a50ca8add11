"""Where results come from is written down, by stage, without a trace of this machine."""

import json

import pytest
import torch

from lib import ROOT, profile
from lib.machine import devices
from lib.profile.load import load
from lib.store import provenance


def test_a_stage_cut_off_keeps_its_first_start(tmp_path, monkeypatch):
    times = iter("abcdef")
    monkeypatch.setattr(provenance, "_now", lambda: next(times))
    with pytest.raises(ValueError), provenance.stage(tmp_path, "fit"):
        raise ValueError
    assert provenance.read(tmp_path)["stages"]["fit"] == {"start": "a", "end": None}
    with provenance.stage(tmp_path, "fit"):
        provenance.update(tmp_path, note=1)
    assert provenance.read(tmp_path) == {"stages": {"fit": {"start": "a", "end": "b"}}, "note": 1}


def test_provenance_names_no_folder_of_this_machine(tmp_path):
    described = provenance.describe(profile.Profile("mine", str(ROOT / "results/mine")))
    assert described["profile"]["results"] == "results/mine"
    assert str(ROOT) not in json.dumps(described)
    assert described["packages"]["torch"].startswith("2.11.0")


@pytest.mark.parametrize("capable", [{}, {"amx_bf16": True}], ids=["AVX2", "AMX"])
def test_precision_is_recorded_as_the_runs_had_it_and_read_so_on_every_machine(capable, monkeypatch):
    """Names of runs contain it: an audit on another machine looks for those that were trained."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    recorded = provenance.describe(load("smoke", ["compute.precision=auto"]))["profile"]["compute"]["precision"]
    assert recorded == ("bf16-mixed" if capable else "32-true")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert devices.resolve_precision(load("smoke", [f"compute.precision={recorded}"]).compute) == recorded
