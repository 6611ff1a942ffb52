"""What a shell completes is what the commands take."""

import os
import shutil
import subprocess

import pytest

from visionkit import UsageError
from visionkit.cli.commands.completion import _choices, _options, main, words_of
from visionkit.cli.commands.predict import parser as predict_parser
from visionkit.cli.main import COMMANDS, run

ASK = """
. ./visionkit.bash
complete -p visionkit
while IFS= read -r line; do
  COMP_WORDS=($line); [ "${line% }" != "$line" ] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); COMPREPLY=()
  _visionkit; echo "${COMPREPLY[@]}"
done
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in ("bash", "zsh", "fish"):
        with (folder / f"visionkit.{shell}").open("w") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", file)
            assert run(["completion", shell]) == 0
    return folder


def asked(scripts, *lines):
    words = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(["bash", "-c", ASK], input=words, cwd=scripts, capture_output=True, text=True, check=True)
    assert not done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "complete -o default -F _visionkit visionkit"
    return others


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="no bash")
def test_bash_completes_commands_options_and_values(scripts):
    lines = {
        "visionkit pre": "predict",
        "visionkit ": " ".join([*COMMANDS, "--help", "--version"]),
        "visionkit predict --save": "--save-images --save-crops",
        "visionkit predict --backend ": "torch compile openvino onnx",
        "visionkit predict PHOTOS": "",  # a file, which bash itself completes
        "visionkit fit --data.cache_f": "--data.cache_folder",
        "visionkit fit --data.cache ": "none ram disk",
        "visionkit fit --data.cache = r": "ram",
        "visionkit fit -c seg": "segment.yaml",
        "visionkit fit --print_config f": "full",
        "visionkit fit --epo": "--epochs",
        "visionkit test --ckpt": "--ckpt --ckpt_path",
        "visionkit backbone ": None,
        "visionkit backbone export --over": "--overwrite",
        "visionkit completion z": "zsh",
        "visionkit nothing --x": "",
    }
    found = dict(zip(lines, asked(scripts, *lines), strict=True))
    assert {"inspect", "export", "--help"} <= set(found.pop("visionkit backbone ").split())
    assert found == {k: v for k, v in lines.items() if v is not None}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_scripts(scripts, shell):
    text = (scripts / f"visionkit.{shell}").read_text()
    assert all(name in text for name in COMMANDS)
    assert "openvino" in text
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-n", str(scripts / f"visionkit.{shell}")], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_words(command):
    words = words_of(command, COMMANDS[command][0])
    assert "--help" in words.options
    for options in (words.options, *words.verbs.values()):
        assert all(o.startswith("-") and " " not in o for o in options)
        assert all(v.isprintable() and " " not in v and "$" not in v for values in options.values() for v in values)


def test_options_are_those_of_the_parser():
    found = _options(predict_parser())
    assert found["--precision"] == ("auto", "32", "bf16", "int8")
    assert found["--window"] == ()
    assert "--save-crops" in found


def test_choices_are_read_from_help():
    assert _choices("How. (Literal['none', 'ram', 'disk'], default: none)\n") == ("none", "ram", "disk")
    assert _choices("Layers. (Literal[18, 34], default: 18)") == ("18", "34")
    assert _choices("Long. (Literal['64', '32'] | Literal['transformer-engine', '..., default: none)") == ()
    assert _choices("A file. (str | None, default: none)") == ()


def test_another_shell_is_refused_in_a_line():
    with pytest.raises(UsageError, match="invalid choice: 'tcsh'"):
        main("completion", ["tcsh"])
