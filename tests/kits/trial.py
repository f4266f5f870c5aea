"""The kit's tests of each bug of the subject ``KITS_SUBJECT``, and of the subject without any: run by test_bugs.py in a
process of its own."""

from __future__ import annotations

import os

from kits.bugs import SUBJECTS

# In CI pytest draws all that differs of large values, for minutes. Hypothesis has looked for it already.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)
_subject = SUBJECTS[os.environ["KITS_SUBJECT"]]
TestRight = _subject.tests(None)
globals().update({f"TestBug{number}": _subject.tests(bug) for number, bug in enumerate(_subject.bugs)})
