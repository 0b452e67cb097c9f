"""Keys that sign: read, told from what is none, chosen for a domain, described for DNS; and the verbs that keep them in Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sendengine.errors import RefusedInput, SendEngineError
from sendengine.keyring import Keyring, dns_record, read_directory, read_key
from sendengine.policy.signing import ED25519, RSA, KeyEntry
from tests.test_cli import Shell, run  # noqa: F401 - a fixture
from tests.verifying import SEED, rsa_pem

PEM = NoEncryption()
SHORTER = """-----BEGIN RSA PRIVATE KEY-----
MIIBywIBAAJhALiyOh7/qGfNd37PkRYnX2bWld/2SEz6gNqC2GjdH8QAewHkH8R3
GkJga88d7+q3k3pwCoLyLZb0OdA0MqwYqV5iskO9zXbUemrJBCaAYA0X+UUljZOm
4x/KTRbLqY4HyQIDAQABAmAzDfFLCFjA+OcDQtVUTmXsw3yCgE3UGZrszCaONjHF
uGxIRYsSf+neV1D128yqETxWYKQMYX+LK+Q1OlgUl4vFpQ9OQmGWzN9+gvXN8uqZ
6P4qUcPhg/CBBRBOERi4AVECMQDviRgBa20mVEYXUtjqSmR3mnJBqnnqJXqGtS99
NCnwfXL9jaYZh/vtk0hWNXjDa9cCMQDFZCvrqGKLB6CAi7KEB5R4qRdu3I5f/o3G
w1XOpnkx3NOr7PFSjldT0y1n4TdGtV8CMQDP3JDXUoiyVTlJrhwMHChY3c6+ixgm
hwVvdjVSmfy287Xgr5Xu2+FThZalMNuuAZsCMBIu0RDrOPCfqjxNIguhex7GTL9M
l9zl4P9/POdFVIKwWdtLf0tgi1DQci1QhLwBtwIxAMVcvsx5SghtlFaSbac7Mgnz
3KaLXHVKqjN3Akl1UOmPjkxFF1SQOvszpn2ArmUXPQ==
-----END RSA PRIVATE KEY-----
"""  # no library makes one any more


def entry(selector: str, text: str = "", domain: str = "example.com", since_s: float = 0.0, algorithm: str = RSA) -> KeyEntry:
    return KeyEntry(domain, selector, algorithm, text or rsa_pem(selector), f"{selector}.pem", since_s * 1e6)


def in_old_form(pem: str) -> str:
    key = load_pem_private_key(pem.encode(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PEM).decode()


def selectors(keyring: Keyring, domain: str = "example.com") -> list[str]:
    return [key.selector for key in keyring.keys_of(domain)]


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_rsa_is_read_in_both_forms(form: PrivateFormat) -> None:
    key = read_key(rsa_pem("forms", 2048, form), "x")
    assert (key.algorithm, key.bits, key.is_short) == (RSA, 2048, False)


def test_a_short_rsa_key_is_taken_with_a_warning_and_a_shorter_one_refused() -> None:
    assert read_key(rsa_pem("short", 1024), "x").is_short
    with pytest.raises(RefusedInput, match=r"^keys/x\.pem: an RSA key of 768 bits"):
        read_key(SHORTER, "keys/x.pem")


def test_ed25519_is_read_as_pem_and_as_a_seed() -> None:
    seed = read_key(SEED + "\n", "x")
    raw = Ed25519PrivateKey.from_private_bytes(b"\1" * 32).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PEM).decode()
    assert (seed.algorithm, seed.public) == (ED25519, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert read_key(raw, "x").algorithm == ED25519


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither"),
        ("AAAA", "neither"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "neither"),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PEM).decode(), "another kind"),
        (
            Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")).decode(),
            "encrypted",
        ),
    ],
)
def test_what_is_no_key_is_refused_with_its_place_and_without_its_text(text: str, said: str) -> None:
    with pytest.raises(RefusedInput, match=said) as refused:
        read_key(text, "keys/a.pem")
    assert str(refused.value).startswith("keys/a.pem: ")
    assert not text or text[:4] not in str(refused.value)


def test_records_are_cut_into_strings_that_dns_can_hold() -> None:
    assert dns_record("example.com", "s", read_key(SEED, "x")) == (
        's._domainkey.example.com. TXT "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="'
    )
    strings = dns_record("example.com", "s", read_key(rsa_pem(), "x")).partition(" TXT ")[2].strip('"').split('" "')
    assert [len(each) <= 255 for each in strings] == [True, True]
    assert "".join(strings).startswith("v=DKIM1; k=rsa; p=MIIBI")


def test_a_directory_is_read_by_domain_and_selector(tmp_path: Path) -> None:
    domain = tmp_path / "example.com"
    domain.mkdir()
    (domain / "2026.a.pem").write_text(rsa_pem("one"))
    (domain / "ed.key").write_text(SEED)
    (tmp_path / ".git").mkdir()
    found = read_directory(tmp_path)
    assert [(each.domain, each.selector, each.algorithm) for each in found] == [
        ("example.com", "2026.a", RSA),
        ("example.com", "ed", ED25519),
    ]
    assert found[0].place == str(domain / "2026.a.pem")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("example.com/b.txt", SEED, "SELECTOR.pem"),
        ("example.com/b.key", SEED, "two keys of one kind"),
        ("example.com/b_.pem", SEED, "no selector"),
        ("Example.com/b.pem", SEED, "no domain"),
        ("com/b.pem", SEED, "no domain"),
        ("example.com/b.pem", "nothing", "neither"),
        ("example.com/b.pem", "ž", "neither"),
    ],
)
def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / "example.com").mkdir()
    (tmp_path / "example.com" / "a.key").write_text(SEED)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(RefusedInput, match=said) as refused:
        read_directory(tmp_path)
    assert str(tmp_path / name) in str(refused.value)


def test_the_nearest_domain_with_a_key_signs() -> None:
    keyring = Keyring([entry("above"), entry("below", domain="news.example.com")])
    assert selectors(keyring, "news.example.com") == ["below"]
    assert selectors(keyring, "a.news.example.com") == ["below"]
    assert selectors(keyring, "shop.example.com") == ["above"]
    assert selectors(keyring, "notexample.com") == []


@pytest.mark.parametrize("later", [{}, {"text": "nothing"}, {"algorithm": "later-sha512"}])
def test_a_key_whose_time_has_not_come_leaves_the_mail_to_the_key_above(later: dict[str, str]) -> None:
    keyring = Keyring()
    keyring.learn([entry("above"), entry("later", domain="news.example.com", since_s=200.0, **later)])
    keyring.turn(100e6)
    assert selectors(keyring, "a.news.example.com") == ["above"]
    keyring.turn(200e6)
    if not later:
        assert selectors(keyring, "a.news.example.com") == ["later"]
    else:
        with pytest.raises(SendEngineError, match=r"later\.pem"):
            keyring.keys_of("a.news.example.com")


def test_a_key_of_an_algorithm_of_a_newer_release_is_not_taken_for_none() -> None:
    for kept in ([entry("new", algorithm="later-sha512")], [entry("one"), entry("new", algorithm="later-sha512")]):
        with pytest.raises(SendEngineError, match=r"new\.pem.*later-sha512"):
            Keyring(kept).keys_of("example.com")


def test_an_entry_shows_itself_without_its_key() -> None:
    shown = [repr(entry("one")), str([entry("one")]), repr(list(entry("one").__rich_repr__()))]
    assert all("example.com" in text and "PRIVATE" not in text and rsa_pem("one")[40:80] not in text for text in shown)


def test_of_each_kind_the_key_that_began_last_signs() -> None:
    keyring = Keyring()
    keyring.learn([entry("one"), entry("two", since_s=100.0), entry("ed", SEED, algorithm=ED25519), entry("later", since_s=200.0)])
    keyring.turn(99e6)
    assert selectors(keyring) == ["ed", "one"]
    keyring.turn(100e6)
    assert selectors(keyring) == ["ed", "two"]
    keyring.turn(201e6)
    assert selectors(keyring) == ["ed", "later"]


def test_a_domain_with_keys_in_files_has_no_others() -> None:
    keyring = Keyring([entry("file")])
    keyring.learn([entry("stored", since_s=1.0), entry("elsewhere", domain="example.net")])
    keyring.turn(2e6)
    assert selectors(keyring) == ["file"]
    assert selectors(keyring, "example.net") == ["elsewhere"]


def test_an_older_key_signs_for_one_that_cannot_be_read_and_nobody_for_none() -> None:
    keyring = Keyring()
    keyring.learn([entry("one"), entry("bad", "nothing", since_s=1.0)])
    keyring.turn(2e6)
    assert selectors(keyring) == ["one"]
    keyring.learn([entry("bad", "nothing", since_s=1.0)])
    with pytest.raises(SendEngineError, match=r"bad\.pem"):
        keyring.keys_of("example.com")


def test_a_key_said_to_be_of_another_kind_does_not_sign() -> None:
    with pytest.raises(SendEngineError, match="is of ed25519"):
        Keyring([entry("one", SEED)]).keys_of("example.com")


# the verbs


def test_a_key_is_added_listed_rotated_and_removed(run: Shell) -> None:  # noqa: F811
    (run.folder / "one.pem").write_text(rsa_pem("one"))
    (run.folder / "two.pem").write_text(rsa_pem("two"))
    done = run("dkim", "add", "Example.com", "--selector", "one", "--key-file", "one.pem")
    assert done.code == 0
    assert done.out.startswith('one._domainkey.example.com. TXT "v=DKIM1; k=rsa; p=')
    done = run("dkim", "add", "example.com", "--selector", "two", "--key-file", "two.pem", "--from", "+2h", "--json")
    assert (done.json["state"], done.json["bits"]) == ("waits", 2048)
    assert done.json["from"] is not None
    assert [(each["selector"], each["state"]) for each in run("dkim", "list", "--json").lines] == [("one", "signs"), ("two", "waits")]
    done = run("dkim", "add", "example.com", "--selector", "two", "--key-file", "two.pem")
    assert (done.code, "nothing is changed: it waits" in done.err) == (0, True)
    assert [each["state"] for each in run("dkim", "list", "example.com", "--json").lines] == ["signs", "waits"]
    assert run("dkim", "add", "example.com", "--selector", "two", "--key-file", "two.pem", "--from", "now").code == 0
    assert [each["state"] for each in run("dkim", "list", "example.com", "--json").lines] == ["resigned", "signs"]
    assert rsa_pem("one")[40:80] not in run("dkim", "list").out
    assert run("dkim", "remove", "example.com", "--selector", "one").code == 0
    gone = run("dkim", "remove", "example.com", "--selector", "on")
    assert (gone.code, "'on'" in gone.err) == (2, True)
    assert run("dkim", "list", "example.net").code == 2


def test_a_record_is_printed_before_the_key_is_kept_and_without_redis(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (run.folder / "one.pem").write_text(rsa_pem("one"))
    (run.folder / "short.pem").write_text(rsa_pem("short", 1024))
    with monkeypatch.context() as away:
        away.setenv("SENDENGINE_REDIS_URL", "redis://127.0.0.1:1")
        shown = run("dkim", "record", "Example.com", "--selector", "one", "--key-file", "one.pem")
        in_json = run("dkim", "record", "example.com", "--selector", "one", "--key-file", "one.pem", "--json").json
        assert in_json["record"] == shown.out.strip()
        assert "short" in run("dkim", "record", "example.com", "--selector", "s", "--key-file", "short.pem").err
        assert run("dkim", "record", "example.com", "--selector", "one", "--key-file", "none.pem").code == 2
        assert run("dkim", "record", "example", "--selector", "one", "--key-file", "one.pem").code == 2
    assert run("dkim", "list", "--json").lines == []
    assert run("dkim", "add", "example.com", "--selector", "one", "--key-file", "one.pem").out == shown.out


def test_another_key_under_a_name_that_signs_is_refused_and_the_same_one_changes_nothing(run: Shell) -> None:  # noqa: F811
    (run.folder / "one.pem").write_text(rsa_pem("one"))
    (run.folder / "one.old-form.pem").write_text(in_old_form(rsa_pem("one")))
    (run.folder / "two.pem").write_text(rsa_pem("two"))
    record = run("dkim", "add", "example.com", "--selector", "s", "--key-file", "one.pem").out
    since = run("dkim", "list", "--json").json["from"]
    refused = run("dkim", "add", "example.com", "--selector", "s", "--key-file", "two.pem")
    assert (refused.code, "another key 's'" in refused.err, "dkim remove" in refused.err) == (2, True, True)
    for name in ("one.pem", "one.old-form.pem"):
        again = run("dkim", "add", "example.com", "--selector", "s", "--key-file", name)
        assert (again.code, again.out, "nothing is changed" in again.err) == (0, record, True)
    assert run("dkim", "list", "--json").json["from"] == since


def test_what_is_no_key_is_not_kept(run: Shell) -> None:  # noqa: F811
    (run.folder / "bad.pem").write_text("nothing")
    done = run("dkim", "add", "example.com", "--selector", "one", "--key-file", "bad.pem")
    assert (done.code, "bad.pem" in done.err) == (2, True)
    assert run("dkim", "add", "example.com", "--selector", "one", "--key-file", "none.pem").code == 2
    assert run("dkim", "list", "--json").lines == []


def test_config_check_prints_the_records_of_the_keys_in_files(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (run.folder / "keys" / "example.com").mkdir(parents=True)
    (run.folder / "keys" / "example.com" / "s.pem").write_text(rsa_pem("short", 1024))
    monkeypatch.setenv("SENDENGINE_DKIM_KEYS", "keys")
    done = run("config", "check")
    assert (done.code, "s._domainkey.example.com. TXT" in done.out, "1024 bits is short" in done.err) == (0, True, True)
    assert [each["domain"] for each in run("config", "check", "--json").json["dkim"]] == ["example.com"]
    (run.folder / "keys" / "example.com" / "s.pem").write_text("nothing")
    done = run("config", "check")
    assert (done.code, "s.pem" in done.err) == (2, True)


def keep(run: Shell, domain: str, selector: str, *more: str) -> None:  # noqa: F811
    (run.folder / f"{selector}.pem").write_text(rsa_pem(selector))
    assert run("dkim", "add", domain, "--selector", selector, "--key-file", f"{selector}.pem", *more).code == 0


def test_removing_a_key_says_what_signs_now(run: Shell) -> None:  # noqa: F811
    keep(run, "example.com", "above")
    keep(run, "news.example.com", "one", "--from", "2020-01-01T00:00:00Z")
    keep(run, "news.example.com", "two")
    keep(run, "news.example.com", "later", "--from", "2099-01-02T00:00:00Z")
    removed = [run("dkim", "remove", "news.example.com", "--selector", name).err for name in ("two", "one", "later")]
    assert removed[0] == "note: mail From news.example.com is signed by one of news.example.com (rsa-sha256) now\n"
    assert removed[1].startswith("warning: mail From news.example.com goes out unsigned from now on, until later of news.example.com")
    assert "2099-01-02" in removed[1]
    assert removed[2] == "note: mail From news.example.com is signed by above of example.com (rsa-sha256) now\n"
    last = run("dkim", "remove", "example.com", "--selector", "above")
    assert (last.code, last.err) == (0, "warning: mail From example.com goes out unsigned from now on: no key is left\n")


def test_keys_that_files_override_are_shown_as_unused(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    keep(run, "example.com", "stored")
    keep(run, "example.net", "other")
    (run.folder / "keys" / "example.com").mkdir(parents=True)
    (run.folder / "keys" / "example.net").mkdir()  # empty: it overrides nothing
    (run.folder / "keys" / "example.com" / "s.pem").write_text(rsa_pem("one"))
    monkeypatch.setenv("SENDENGINE_DKIM_KEYS", "keys")
    assert [each["overridden_by"] for each in run("dkim", "list", "--json").lines] == ["keys/example.com", None]
    shown = run("dkim", "list").out
    assert ("unused" in shown, "example.com is signed by its files in keys/example.com" in shown) == (True, True)
    assert "example.net is signed by its files" not in shown
    with monkeypatch.context() as absent:
        absent.setenv("SENDENGINE_DKIM_KEYS", "elsewhere")
        unread = run("dkim", "list")
        assert (unread.code, "elsewhere" in unread.err, "unused" in unread.out) == (0, True, False)
    assert "by the files in keys/example.com" in run("dkim", "remove", "example.com", "--selector", "stored").err


def test_a_key_file_that_others_can_read_is_warned_of_by_name(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (run.folder / "keys" / "example.com").mkdir(parents=True)
    monkeypatch.setenv("SENDENGINE_DKIM_KEYS", "keys")
    file = run.folder / "keys" / "example.com" / "s.pem"
    file.write_text(rsa_pem("one"))
    name = "keys/example.com/s.pem"
    commands = [("config", "check"), *(("dkim", verb, "example.com", "--selector", "s", "--key-file", name) for verb in ("record", "add"))]
    for mode, is_warned in ((0o640, True), (0o604, True), (0o600, False), (0o400, False)):
        file.chmod(mode)
        for command in commands:
            done = run(*command)
            assert (done.code, f"warning: {name} is open to others" in done.err) == (0, is_warned)


def test_config_check_tells_all_mistakes_in_one_go(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    folder = run.folder / "keys" / "example.com"
    folder.mkdir(parents=True)
    for name in ("a.pem", "b.pem", "c.txt"):
        (folder / name).write_text("nothing")
    (folder / "good.pem").write_text(rsa_pem("one"))
    (run.folder / "own.toml").write_text("dkim_keys = 'keys'\nsesions = 1\nretry = 'often'\nrelay = 'ftp://x'\ntiers_file = 'none.toml'\n")
    monkeypatch.setenv("SENDENGINE_CONFIG", "own.toml")
    monkeypatch.setenv("SENDENGINE_SESIONS", "1")
    done = run("config", "check")
    wanted = ("variable SENDENGINE_SESIONS", "own.toml:2: unknown key", "a.pem", "b.pem", "c.txt", "often", "ftp://x", "none.toml")
    assert (done.code, [word for word in wanted if word not in done.err]) == (2, [])
    assert "good._domainkey.example.com. TXT" in done.out
    in_json = run("config", "check", "--json")
    assert (in_json.code, in_json.json["ok"], len(in_json.json["errors"])) == (2, False, done.err.count("error: "))


def test_config_check_says_how_many_keys_redis_holds(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    keep(run, "example.com", "one")
    keep(run, "example.net", "two")
    assert "Redis holds 2 keys that sign" in run("config", "check").out
    assert run("config", "check", "--json").json["dkim_in_redis"] == 2
    monkeypatch.setenv("SENDENGINE_REDIS_URL", "redis://127.0.0.1:1")
    assert (run("config", "check").code, "Redis is not reached" in run("config", "check").out) == (0, True)
    monkeypatch.setenv("SENDENGINE_REDIS_URL", "http://127.0.0.1")
    assert run("config", "check").code == 2


def test_config_check_starts_no_embedded_server(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.delenv("SENDENGINE_REDIS_URL")
    monkeypatch.setenv("SENDENGINE_STATE_DIR", str(run.folder / "state"))
    assert (run("config", "check").code, (run.folder / "state").exists()) == (0, False)
