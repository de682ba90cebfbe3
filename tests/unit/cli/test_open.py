"""Who may be in open mode: nobody on an address that everybody reaches, unless it is meant."""

import pytest
from click.testing import CliRunner

from dhtos.cli import run as run_module
from dhtos.cli.run import check_open, run
from dhtos.errors import ConfigError
from dhtos.node.config import Config
from dhtos.node.membership import NAME


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "192.168.7.7", "::1", "fd00::1"])
def test_a_private_address_may_be_open(host):
    check_open(Config(host=host), i_know=False)


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:4860:4860::8888"])
def test_a_public_one_may_not_unless_it_is_meant(host):
    with pytest.raises(ConfigError, match=f"whoever reaches {host} could join"):
        check_open(Config(host=host), i_know=False)
    check_open(Config(host=host), i_know=True)


def test_what_is_advertised_counts():
    config = Config(host="10.0.0.1", advertise_host="8.8.8.8")
    with pytest.raises(ConfigError, match=r"8\.8\.8\.8"):
        check_open(config, i_know=False)
    check_open(Config(host="8.8.8.8", advertise_host="10.0.0.1"), i_know=False)


def test_all_addresses_are_the_one_that_leads_out(monkeypatch):
    monkeypatch.setattr(run_module, "outward", lambda: "8.8.8.8")
    with pytest.raises(ConfigError, match=r"8\.8\.8\.8"):
        check_open(Config(host="0.0.0.0"), i_know=False)
    monkeypatch.setattr(run_module, "outward", lambda: "192.168.1.9")
    check_open(Config(host="::"), i_know=False)


@pytest.fixture
def served(monkeypatch):
    """What `run` would start."""
    started = []
    monkeypatch.setattr(run_module, "run_loop", lambda coroutine: coroutine.close())
    monkeypatch.setattr(run_module, "check_open", lambda config, *, i_know: started.append(i_know))
    return started


def test_a_member_is_no_open_node(tmp_path, served):
    (tmp_path / NAME).write_text("{}")
    done = CliRunner().invoke(run, ["--state-dir", str(tmp_path)])
    assert (done.exit_code, served) == (0, [])
    done = CliRunner().invoke(run, ["--state-dir", str(tmp_path), "--open"])
    assert isinstance(done.exception, ConfigError)
    assert "leave --open out" in str(done.exception)


def test_open_does_not_take_the_membership_of_the_usual_directory(tmp_path, served, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "dhtos").mkdir()
    (tmp_path / "dhtos" / NAME).write_text("{}")
    assert CliRunner().invoke(run, []).exit_code == 0
    assert served == []
    assert CliRunner().invoke(run, ["--open", "--i-know"]).exit_code == 0
    assert served == [True]
