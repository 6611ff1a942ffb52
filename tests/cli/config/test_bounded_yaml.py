"""YAML is bounded before it is built: no bomb takes time or memory, every refusal is one line with file and line."""

import resource
import subprocess
import sys

import pytest
import yaml

from visionkit.cli.config import bounded_yaml
from visionkit.core.errors import UsageError


def aliases(levels, entry):
    """Return YAML whose last value has 2 to the power of levels values."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{k}: &a{k} " + entry.format(f"*a{k - 1}") for k in range(1, levels)]
    return "\n".join(lines) + f"\ndata: *a{levels - 1}\n"


BOMBS = {
    "lists": (aliases(40, "[{0}, {0}]"), r"bomb\.yaml:\d+: holds more than 100,000 values when its aliases are"),
    "mappings": (aliases(40, "{{l: {0}, r: {0}}}"), r"bomb\.yaml:\d+: holds more than 100,000 values"),
    "merged keys": (aliases(40, "{{<<: [{0}, {0}]}}"), r"bomb\.yaml:\d+: holds more than 100,000 values"),
    "values": ("data: [" + "1," * 100_001 + "1]", r"bomb\.yaml: holds more than 100,000 values"),
    "deep": ("data: " + "[" * 60 + "]" * 60, r"bomb\.yaml: lists and mappings stand in each other more than 50 deep"),
    "3000 deep": ("data: " + "[" * 3000 + "]" * 3000, r"bomb\.yaml:1: not valid YAML: exceeded maximum nesting depth"),
    "itself": ("a: 1\ndata: &a [*a]\n", r"bomb\.yaml:2: \*a stands inside of what it names"),
    "itself, deeper": ("a: &a\n  b: {c: [*a]}\n", r"bomb\.yaml:2: \*a stands inside of what it names"),
    "digits": ("data: " + "9" * 5000, r"bomb\.yaml: a number of more than 400 digits"),
    "base 60": ("data: 1" + ":1" * 100_000, r"bomb\.yaml: a number of more than 400 digits"),
    "large": ("#" * 1_000_001, r"bomb\.yaml: has more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_are_refused(tmp_path, case):
    text, words = BOMBS[case]
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(UsageError, match=words) as raised:
        bounded_yaml.load_file(tmp_path / "bomb.yaml")
    assert len(raised.value.lines) == 1


@pytest.mark.parametrize(
    ("case", "place"), [("lists", "-c"), ("itself", "--model.backbone"), ("mappings", "--data.augment")]
)
def test_every_way_in_is_bounded(tmp_path, case, place):
    """A config, a file in place of a class and a value of the command line, in a process with bounded memory and time."""
    (tmp_path / "bomb.yaml").write_text(BOMBS[case][0])
    given = BOMBS[case][0] if place == "--data.augment" else str(tmp_path / "bomb.yaml")
    asked = ["fit", "-c", "classify.yaml", place, given]
    gigabytes = 6 << 30
    done = subprocess.run(
        [sys.executable, "-m", "visionkit", *asked],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (gigabytes, gigabytes)),
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr[-500:]
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", r"x\.yaml:3: the key 'a' stands in line 1 already"),
        ("a: {b: 1, b: 1}\n", r"x\.yaml:1: the key 'b' stands in line 1 already"),
        ("a: !!int ''\n", r"x\.yaml: not valid YAML"),
        ("a: !!timestamp x\n", r"x\.yaml: not valid YAML"),
        ("a: !!bool x\n", r"x\.yaml: not valid YAML"),
        ("ok: 1\na: *b\n", r"x\.yaml:2: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", r"x\.yaml:2: not valid YAML"),
        ("ok: 1\na: b\0\n", r"x\.yaml:2: not valid YAML"),
    ],
)
def test_faults_name_the_line(text, words):
    with pytest.raises(UsageError, match=words) as raised:
        bounded_yaml.load(text, "x.yaml")
    assert len(raised.value.lines) == 1


def test_what_people_write_is_read_as_ever():
    text = """
        base: &base {lr: 1.0e-3, betas: [0.9, 0.99]}
        mine: {<<: *base, lr: 2.0e-3}
        list: [*base, *base]
        same: {a: {x: 1}, b: {x: 1}}
        number: 123456789012345678901234567890
    """
    assert bounded_yaml.load(text, "x") == yaml.safe_load(text)
    assert bounded_yaml.load(" ".join(["[" * 49, "]" * 49]), "x")
    assert bounded_yaml.load_value("no: [yaml", "--x") is None
