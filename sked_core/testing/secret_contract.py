"""What every provider of secrets has to pass. To hold one to it, in a test file of your own::

class TestMySecrets(SecretContract):
    sample = MY_SECRETS
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sked_core.errors import Denied, NotFound, SkedError, Unavailable
from sked_core.interfaces.secrets import MAX_SECRET_BYTES, Secret, SecretProvider
from sked_core.testing.needed import SampleTests
from sked_core.testing.samples import Keep, SecretSample

DEADLINE_SECONDS = 15.0
CANARY = "s3cr3t-canary-7fe1"


class SecretContract(SampleTests):
    """What ``read`` promises. ``sample`` says of which provider."""

    sample: ClassVar[SecretSample]

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Iterator[tuple[SecretProvider, Keep]]:
        """A provider with no secrets yet, and how to keep some in it."""
        provider, keep = self.sample.fresh(tmp_path)
        yield provider, keep
        provider.close()
        if self.sample.clear is not None:
            self.sample.clear(tmp_path)

    @pytest.fixture
    def provider(self, kept: tuple[SecretProvider, Keep]) -> SecretProvider:
        return kept[0]

    @pytest.fixture
    def keep(self, kept: tuple[SecretProvider, Keep]) -> Keep:
        return kept[1]

    def test_a_secret_is_read_as_it_was_kept(self, provider: Any, keep: Keep) -> None:
        for value in (CANARY, "grüße, 🌍", 'a "b" \\c $d `e`', "one\ntwo", " spaces "):
            keep("shop/db-password", value)
            found = provider.read("shop/db-password", "")
            assert isinstance(found, Secret)
            assert found.value == value

    def test_names_are_told_apart(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", "value of one")
        keep("shop/two", "value of two")
        assert provider.read("shop/one", "").value == "value of one"
        assert provider.read("shop/two", "").value == "value of two"

    def test_its_version_stays_until_it_changes_and_is_not_the_value(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", CANARY)
        first, again = provider.read("shop/one", ""), provider.read("shop/one", "")
        assert first.version == again.version
        assert bool(first.version) == self.sample.versions
        assert CANARY not in first.version
        if self.sample.versions:
            keep("shop/one", CANARY + " of today")
            changed = provider.read("shop/one", "")
            assert changed.value == CANARY + " of today"
            assert changed.version != first.version

    @pytest.mark.parametrize("name", ["shop/none", "none", "shop", "shop/one/below"])
    def test_what_is_not_there_is_not_found(self, provider: Any, keep: Keep, name: str) -> None:
        keep("shop/one", CANARY)
        with pytest.raises((NotFound, Denied)) as raised:
            provider.read(name, "")
        assert CANARY not in str(raised.value)

    def test_what_was_there_is_not_found_any_more(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", CANARY)
        assert provider.read("shop/one", "").value == CANARY
        keep("shop/one", None)
        with pytest.raises(NotFound):
            provider.read("shop/one", "")

    def test_a_key_is_a_field_of_it_or_not_found(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", CANARY)
        if self.sample.fields:
            assert provider.read("shop/one", "value").value == CANARY
        with pytest.raises(NotFound) as raised:
            provider.read("shop/one", "no-such-field")
        assert CANARY not in str(raised.value)

    @pytest.mark.parametrize(
        "name", ["..", "../shop/one", "shop/../shop/one", "shop//one", "/shop/one", "shop/one/", ""]
    )
    def test_no_name_leads_elsewhere(self, provider: Any, keep: Keep, name: str) -> None:
        keep("shop/one", CANARY)
        with pytest.raises((NotFound, Denied)):
            provider.read(name, "")

    def test_what_is_too_large_is_denied(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", "x" * MAX_SECRET_BYTES)
        assert len(provider.read("shop/one", "").value) == MAX_SECRET_BYTES
        keep("shop/one", "x" * (MAX_SECRET_BYTES + 1))
        with pytest.raises(Denied):
            provider.read("shop/one", "")

    def test_no_value_is_shown_or_logged(self, provider: Any, keep: Keep, caplog: Any) -> None:
        caplog.set_level("DEBUG")
        keep("shop/one", CANARY)
        found = provider.read("shop/one", "")
        with pytest.raises(SkedError):
            provider.read("shop/one", "no-such-field")
        assert CANARY not in f"{found!r} {found!s} {provider!r} {provider.problems()}"
        assert CANARY not in caplog.text

    def test_many_threads_read_at_once_within_the_deadline(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", CANARY)
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(provider.read("shop/one", "").value), daemon=True)
            for _ in range(16)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
        assert found == [CANARY] * 16, f"after {time.monotonic() - began:.1f} s"

    def test_what_cannot_be_told_now_is_not_said_to_be_missing(self, provider: Any, keep: Keep, tmp_path: Path) -> None:
        """A task whose secret is not there is rejected; one whose secret can't be read now is started later."""
        if self.sample.outage is None:
            pytest.skip(f"the sample of {self.sample.name} has no outage: nobody tried what it says then")
        keep("shop/one", CANARY)
        with self.sample.outage(tmp_path):
            for name in ("shop/one", "shop/none"):
                with pytest.raises(Unavailable) as raised:
                    provider.read(name, "")
                assert CANARY not in str(raised.value)
            assert provider.problems(), "`sked doctor` has to say so"
        assert provider.read("shop/one", "").value == CANARY

    def test_it_is_fit_for_use_and_closes_twice(self, provider: Any, keep: Keep) -> None:
        keep("shop/one", CANARY)
        assert provider.problems() == []
        provider.close()
        provider.close()
