"""The file of tokens: what may stand in it, who may read it, and that a change counts without a restart."""

import hashlib
import os

import pytest

from rigs.tls import token_file
from sked_core.errors import InvalidManifest, InvalidValue
from sked_core.serving import tokens as module
from sked_core.serving.tokens import Caller, Role, Tokens, load

LONG = "0123456789abcdef"


def test_a_line_gives_a_token_its_name_and_role(tmp_path):
    path = token_file(tmp_path / "t", "# ours", "", f"ann admin {LONG}A", f"bob read {LONG}B  # only looks")
    known = Tokens(path)
    assert known.caller(f"{LONG}A") == Caller("ann", Role.ADMIN)
    assert known.caller(f"{LONG}B") == Caller("bob", Role.READ)
    assert known.caller(LONG) is None
    assert known.caller("") is None


def test_a_token_may_stand_there_as_its_digest(tmp_path):
    path = token_file(tmp_path / "t", f"ann operate sha256:{hashlib.sha256(b'short').hexdigest()}")
    known = Tokens(path)
    assert known.caller("short") == Caller("ann", Role.OPERATE)
    assert known.caller(hashlib.sha256(b"short").hexdigest()) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(tmp_path, mode):
    path = token_file(tmp_path / "t", f"ann admin {LONG}")
    path.chmod(mode)
    with pytest.raises(InvalidValue, match="read by others") as raised:
        load(path)
    assert raised.value.hint == f"try: chmod 600 {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_taken_by_root_only_where_it_is_theirs(tmp_path):
    path = token_file(tmp_path / "t", f"ann admin {LONG}")
    os.chown(path, 4321, 4321)
    with pytest.raises(InvalidValue, match="belongs to another user"):
        load(path)


def test_every_mistake_is_told_with_its_line_and_no_token_is_quoted(tmp_path):
    path = token_file(
        tmp_path / "t",
        f"ann admim {LONG}secret",
        "bob admin tooshort",
        f"cid {LONG}secret",
        "dan admin sha256:1234",
        f"eve admin {LONG}",
        f"fay read {LONG}",
    )
    with pytest.raises(InvalidManifest) as raised:
        load(path)
    assert [(problem.line, problem.message) for problem in raised.value.problems] == [
        (1, 'no role "admim", did you mean "admin"?'),
        (2, "a token has at least 16 characters, such as those of: openssl rand -hex 32"),
        (3, "expected NAME ROLE TOKEN"),
        (4, "expected 64 hexadecimal digits after sha256:"),
        (6, "this token stands here twice"),
    ]
    assert "secret" not in str(raised.value)
    assert "tooshort" not in str(raised.value)


def test_a_file_without_tokens_is_a_mistake_and_one_that_is_not_there_too(tmp_path):
    with pytest.raises(InvalidManifest, match="holds no token"):
        load(token_file(tmp_path / "t", "# later"))
    with pytest.raises(InvalidValue, match="No such file"):
        Tokens(tmp_path / "nothing")


def test_a_changed_file_counts_and_a_broken_one_leaves_what_was_known(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REREAD_SECONDS", 0.0)
    path = token_file(tmp_path / "t", f"ann admin {LONG}A")
    known = Tokens(path)
    token_file(path, f"bob admin {LONG}B-new")
    assert known.caller(f"{LONG}A") is None, "a token that was taken out is refused"
    assert known.caller(f"{LONG}B-new") is not None
    token_file(path, "bob")
    assert known.caller(f"{LONG}B-new") is not None
    assert "expected NAME ROLE TOKEN" in known.trouble
    path.unlink()
    assert known.caller(f"{LONG}B-new") is not None
    token_file(path, f"cid admin {LONG}C")
    assert known.caller(f"{LONG}C") is not None
    assert known.trouble == ""
