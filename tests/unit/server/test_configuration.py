import os
import re
from pathlib import Path

import pytest

from headrace.engine.config import GENEROUS, EngineConfig
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.model.specs import MIB, Limits
from headrace.server.configuration import Configuration, default_file, load, variable_of
from headrace.server.settings import TEMPLATE_ALIASES, Settings, describe, engine_settings

KEY = "0123456789abcdef0123456789abcdef01234567"
DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def load_file(tmp_path: Path, text: str, **more: object) -> Configuration:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load({}, more, path)


def load_env(**environ: str) -> Configuration:
    # A file that does not exist, wherever the tests run.
    return load({"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent", **environ}, {})


# --- precedence and origins -------------------------------------------------------------------


def test_without_anything_all_values_are_safe_defaults() -> None:
    settings = load_env().settings

    assert settings.server.host == "127.0.0.1"
    assert settings.server.port == 8000
    assert settings.server.cors_origins == ()
    assert settings.default_limits == Limits()
    assert settings.max_limits == GENEROUS


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[server]\nhost = "10.0.0.1"\nport = 1\n[engine]\npool_size = 1\n')

    loaded = load(
        {"HEADRACE_PORT": "2", "HEADRACE_ENGINE__POOL_SIZE": "2"}, {"engine.pool_size": "3"}, path
    )

    server, engine = loaded.settings.server, loaded.settings.engine
    assert (server.host, server.port, engine.pool_size) == ("10.0.0.1", 2, 3)
    origins = {name: origin for name, _, origin in loaded.rows()}
    assert origins["server.host"] == str(path)
    assert origins["server.port"] == "HEADRACE_PORT"
    assert origins["engine.pool_size"] == "flag"
    assert origins["logs.level"] == "default"


@pytest.mark.parametrize("variable", ["HEADRACE_PORT", "HEADRACE_SERVER__PORT"])
def test_the_topic_server_may_be_left_out_of_a_variable(variable: str) -> None:
    assert load_env(**{variable: "9"}).settings.server.port == 9


def test_both_names_of_one_setting_are_a_contradiction() -> None:
    with pytest.raises(InvalidRequestError, match="HEADRACE_PORT and HEADRACE_SERVER__PORT"):
        load_env(HEADRACE_PORT="1", HEADRACE_SERVER__PORT="1")


def test_an_empty_variable_counts_as_none() -> None:
    loaded = load_env(HEADRACE_PORT="", HEADRACE_API_KEYS="")

    assert loaded.settings.server.port == 8000
    assert loaded.origins["server.port"] == "default"
    assert loaded.settings.server.api_keys == ()


def test_lists_are_separated_by_commas_in_variables_and_lists_in_files(tmp_path: Path) -> None:
    from_env = load_env(HEADRACE_HOST_NAMES="a.example, b.example,")
    from_file = load_file(tmp_path, '[server]\nhost_names = ["a.example", "b.example"]')

    assert from_env.settings.server.host_names == ("a.example", "b.example")
    assert from_file.settings.server.host_names == ("a.example", "b.example")


def test_sizes_may_have_a_unit() -> None:
    settings = load_env(HEADRACE_LIMITS__MEMORY="2GiB", HEADRACE_MAX_BODY="1048576").settings

    assert settings.default_limits.memory == 2048 * MIB
    assert settings.server.max_body == MIB


def test_variables_of_the_clients_are_no_settings() -> None:
    load_env(HEADRACE_URL="http://x", HEADRACE_API_KEY=KEY, HEADRACE_TEST_MODE="root", PATH="/bin")


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("[server]\nport = 5")

    assert load_env(HEADRACE_CONFIG=str(path)).settings.server.port == 5


def test_the_usual_file_need_not_exist_but_a_named_one_must(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"no configuration file .*missing\.toml"):
        load({}, {}, tmp_path / "missing.toml")


def test_the_usual_file_is_that_of_root_or_of_the_user() -> None:
    path = default_file({"HOME": "/home/me"})
    other = default_file({"HOME": "/home/me", "XDG_CONFIG_HOME": "/cfg"})

    if os.geteuid() == 0:
        assert path == other == Path("/etc/headrace/config.toml")
    else:
        assert path == Path("/home/me/.config/headrace/config.toml")
        assert other == Path("/cfg/headrace/config.toml")


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (
            "HEADRACE_PROT",
            "unknown environment variable HEADRACE_PROT; did you mean HEADRACE_PORT?",
        ),
        ("HEADRACE_POOL_SIZE", "did you mean HEADRACE_ENGINE__POOL_SIZE?"),
        ("HEADRACE_LOGS_LEVEL", "did you mean HEADRACE_LOGS__LEVEL?"),
        ("HEADRACE_ENGINE__PORT", "did you mean HEADRACE_PORT?"),
        ("HEADRACE_XYZZY", "unknown environment variable HEADRACE_XYZZY"),
        ("HEADRACE_", "unknown environment variable HEADRACE_"),
        ("HEADRACE_A__B__C", "unknown environment variable HEADRACE_A__B__C"),
    ],
)
def test_an_unknown_variable_is_named(variable: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(said)):
        load_env(**{variable: "1"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "unknown setting 'prot' in [server]; did you mean server.port?"),
        ("[sever]\nport = 1", "unknown table [sever]; expected [server], [engine]"),
        ("port = 1", "unknown table [port]"),
        ("server = 1", "server must be a table: write [server]"),
        ("[server", "is no TOML"),
        ("\udc80", "is no TOML"),
        ("[server]\nport = 70000", "server.port"),
        ("[server.host]\nx = 1", "server.host"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(InvalidRequestError, match=re.escape(said)) as caught:
        load({}, {}, path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("server.port", "70000", "server.port: input should be less than or equal to 65535"),
        ("server.port", "x", "server.port: input should be a valid integer"),
        ("server.heartbeat", "nan", "server.heartbeat: input should be a finite number"),
        ("server.heartbeat", "0", "got '0'"),
        ("engine.mode", "docker", "'auto', 'root' or 'rootless', got 'docker'"),
        ("limits.memory", "much", "limits.memory"),
        ("limits.memory", "1", "limit memory must be a whole number of at least"),
        ("limits.max_memory", "64MiB", "limit memory may be at most"),
        ("server.tls_cert", "/x", "server.tls_cert and server.tls_key belong together"),
        ("server.tcp", "false", "nothing to listen on"),
        ("server.nothing", "1", "unknown setting 'server.nothing'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_was_expected(
    name: str, value: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(said)):
        load({"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}, {name: value})


def test_an_error_says_where_the_value_is_from() -> None:
    with pytest.raises(InvalidRequestError, match=r"server\.port \(HEADRACE_PORT\): .*got 'x'"):
        load_env(HEADRACE_PORT="x")


def test_keys_are_never_shown(tmp_path: Path) -> None:
    loaded = load_env(HEADRACE_API_KEYS=f"team:{KEY},{KEY[::-1]}")

    assert KEY not in repr(loaded)
    assert KEY not in repr(loaded.rows())
    assert {name: value for name, value, _ in loaded.rows()}["server.api_keys"] == (
        "2 set, not shown"
    )
    with pytest.raises(InvalidRequestError) as caught:
        load_file(tmp_path, f'[server]\napi_keys = [["{KEY}"]]')
    assert "server.api_keys" in caught.value.message
    assert KEY not in caught.value.message


# --- the document and the engine --------------------------------------------------------------


def test_the_document_has_every_setting_as_the_code_has_it() -> None:
    defaults = {name: value for name, value, _ in load_env().rows()}
    expected = [
        f"| `{name}` | `{variable_of(name)}` | {show(defaults[name], unit)} | {text} |"
        for name, text, unit in describe()
    ]

    assert [
        line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")
    ] == expected


def show(value: object, unit: str) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if unit == "bytes" and isinstance(value, int):
        return _size(value)
    shown = f"{value:.15g}" if isinstance(value, float) else str(value)
    return f"{shown} {unit}" if unit else shown


def _size(value: int) -> str:
    for unit, factor in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if value % factor == 0:
            return f"{value // factor} {unit}"
    return f"{value} bytes"


def test_the_engine_gets_what_the_settings_say(tmp_path: Path) -> None:
    settings = load_env(
        HEADRACE_ENGINE__POOL_SIZE="7",
        HEADRACE_ENGINE__MAX_TENANT_SANDBOXES="3",
        HEADRACE_ENGINE__PYTHON_PREFIX="/opt/python",
        HEADRACE_LIMITS__CPUS="2",
    ).settings

    config = EngineConfig(tmp_path, tmp_path, **engine_settings(settings))

    assert (config.pool_size, config.max_tenant_sandboxes) == (7, 3)
    assert config.python_prefix == Path("/opt/python")
    assert config.default_limits.cpus == 2.0


def test_the_defaults_of_the_engine_are_those_of_the_settings(tmp_path: Path) -> None:
    assert EngineConfig(tmp_path, tmp_path, **engine_settings(Settings())) == EngineConfig(
        tmp_path, tmp_path, template_aliases=TEMPLATE_ALIASES
    )


def test_every_setting_is_described() -> None:
    assert all(text.endswith((".", "`")) and "\n" not in text for _, text, _ in describe())


def test_nothing_but_our_own_reading_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SERVER__PORT", "1")
    monkeypatch.setenv("SERVER", '{"port": 1}')

    assert Settings().server.port == 8000
    with pytest.raises(HeadraceError):
        load({"HEADRACE_SERVER": "1"}, {})
