"""Without metrics nothing is recorded, and nothing of what records is loaded."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from latchstring import ConfigurationError
from latchstring.foundation.measurements import UNMETERED, Metric, MetricsSettings
from latchstring.foundation.measurements.meter import meter_for
from latchstring.foundation.measurements.recorder import Recorder


def test_nothing_is_recorded_unless_the_settings_say_so(tmp_path: Path) -> None:
    """And a port or a directory says so too."""
    assert meter_for(MetricsSettings()) is UNMETERED
    for changes in ({"metrics": True}, {"metrics_port": 0}, {"metrics_dir": tmp_path / "shared"}):
        assert isinstance(meter_for(MetricsSettings.model_validate(changes)), Recorder)
    assert not (tmp_path / "shared").exists(), "building an Auth writes no file"


@pytest.mark.parametrize("call", [UNMETERED.count, lambda metric: UNMETERED.gauge(metric, 1.0)])
def test_without_metrics_a_call_does_nothing(call: Callable[[Metric], None]) -> None:
    """The meter of everyone who has none."""
    call(Metric.SIGN_INS)


def test_without_the_extra_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not at the first scrape."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'latchstring\[metrics\]'"):
        meter_for(MetricsSettings(metrics=True))
    assert meter_for(MetricsSettings()) is UNMETERED


def test_without_metrics_nothing_of_them_is_loaded() -> None:
    """Neither by the import nor by an Auth: no catalogue, no recorder, no prometheus_client."""
    program = (
        "import sys, latchstring\n"
        "auth = latchstring.Auth('sqlite:///never.db', secret='0123456789abcdef' * 2)\n"
        "print(*sorted(name for name in sys.modules if 'measurements.' in name or 'prometheus' in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert loaded == {"meter", "names", "settings"}
