"""Builds the compiled part of the package where there is a C compiler; the package works without it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-O3", "-fPIC", "-shared", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")


class CompiledPart(BuildHookInterface[Any]):
    """Compiles visionkit/models/ops/fused_norm.c into the wheel, or beside it for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say so where that fails."""
        folder = Path(self.root, "visionkit", "models", "ops")
        target = folder / "_fused_norm.so"
        if self.target_name != "wheel" or not sys.platform.startswith("linux"):
            return
        target.unlink(missing_ok=True)  # an older one would not be what its source says
        compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "cc"]
        command = [*compiler, *FLAGS, str(folder / "fused_norm.c"), "-lm", "-o", f"{target}.new"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # the user's compiler
            failed = done.stderr if done.returncode else ""
        except OSError as e:
            failed = str(e)
        if failed:
            self.app.display_warning(f"without compiled normalisation, training on a CPU is slower: {failed[-500:]}")
            return
        os.replace(f"{target}.new", target)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append("visionkit/models/ops/_fused_norm.so")
