"""The kit's tests of each bug of the subject ``KITS_SUBJECT``, and of the subject without any: run by test_bugs.py in a
process of its own."""

from __future__ import annotations

import os

from kits.bugs import SUBJECTS

_subject = SUBJECTS[os.environ["KITS_SUBJECT"]]
TestRight = _subject.tests(None)
globals().update({f"TestBug{number}": _subject.tests(bug) for number, bug in enumerate(_subject.bugs)})
