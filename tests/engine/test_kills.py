"""A few fits that are killed; ``make test-kills`` does it as often as asked."""

import os
import random

import pytest
from kills import METHODS, kill_and_resume


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize("entry", METHODS[::3], ids=lambda entry: entry.name)
def test_a_killed_fit_resumes_with_the_same_bits(entry):
    kill_and_resume(entry, random.Random(0))
