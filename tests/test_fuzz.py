"""Broken files, many of them; `python tests/fuzzing.py --help` says how a case is run and what it must do.

DEARTIFACT_FUZZ_SEED takes another seed, and with it other cases.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from fuzz_mutations import MUTATIONS
from fuzz_samples import PICTURES, VIDEOS

SEED = int(os.environ.get("DEARTIFACT_FUZZ_SEED", "1"))


def check(count, first, tmp_path):
    """Runs cases in a process that has nothing but the command in it, and so can fork."""
    program = [sys.executable, str(Path(fuzzing.__file__)), f"--seed={SEED}", f"--cases={count}", f"--first={first}"]
    done = subprocess.run([*program, f"--keep={tmp_path / 'kept'}"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    outcomes = [fuzzing.Outcome(**values) for values in json.loads(done.stdout)]
    assert len(outcomes) == count
    assert [each for each in outcomes if each.trouble is not None] == []
    return outcomes


def test_broken_files_end_in_one_line_and_nothing_else(tmp_path):
    outcomes = check(200, 0, tmp_path)
    assert {each.name for each in outcomes} == set(PICTURES) | set(VIDEOS)
    # The changes are of a kind that some files survive, some partly, and most not.
    codes = Counter(each.code for each in outcomes)
    assert codes[0] > 20 and codes[2] > 50 and codes[3] > 0


@pytest.mark.slow
def test_many_broken_files(tmp_path):
    check(4000, 200, tmp_path)


def test_a_case_depends_on_the_seed_and_its_number_alone(tmp_path):
    samples = {}
    for name, content in (("png", b"IHDR" + bytes(300)), ("mp4_h264", b"moov" + bytes(300))):
        samples[name] = tmp_path / f"{name}.x"
        samples[name].write_bytes(content)
    together = list(fuzzing.cases(SEED, range(9), samples))
    assert list(fuzzing.cases(SEED, [7], samples)) == together[7:8]
    assert list(fuzzing.cases(SEED + 1, range(9), samples)) != together


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_mutations_change_a_file_and_not_its_source(name):
    data = b"IHDR" + bytes(range(256)) + b"moov" + bytes(300)
    changed = [MUTATIONS[name](bytearray(data), np.random.default_rng(seed), [b"idx1" + data]) for seed in range(8)]
    assert any(each != data for each in changed)
    again = MUTATIONS[name](bytearray(data), np.random.default_rng(0), [b"idx1" + data])
    assert again == changed[0]


@pytest.fixture
def case(tmp_path):
    """A folder as a case leaves it that ended with an error, in one line."""
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken").write_bytes(b"x")
    (tmp_path / "stderr").write_text("deartifact: error: it is broken\n")
    return tmp_path


def trouble(folder, code=2, memory=100.0, seconds=1.0, before=None):
    return fuzzing._trouble(code, memory, seconds, folder, fuzzing._tree(folder) if before is None else before)


def test_what_a_case_must_not_do_is_found(case):
    assert trouble(case) is None
    assert trouble(case, code=1) == "exit code 1: deartifact: error: it is broken"
    assert trouble(case, code=-11) == "ended by SIGSEGV"
    assert trouble(case, code=-9, seconds=fuzzing.SECONDS + 1) == f"killed after {fuzzing.SECONDS} s"
    assert trouble(case, code=0) == "exit code 0 with ['deartifact: error: it is broken']"
    assert trouble(case, memory=5000.0) == "5000 MB of memory"
    assert trouble(case, before={}) == "files outside the output folder changed"
    (case / "out" / "new.png").write_bytes(b"x")
    assert trouble(case) == "a file in spite of an error"
    (case / "out" / ".deartifact-1.png").write_bytes(b"x")
    assert trouble(case) == "a temporary file is left"
    (case / "stderr").write_text("Traceback (most recent call last):\n")
    assert trouble(case) == "stderr holds 'Traceback (most recent call last):'"
