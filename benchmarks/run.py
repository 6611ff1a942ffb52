"""Run a comparison: python benchmarks/run.py NAME [options of the comparison]."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def load(name: str) -> Any:
    """Import a comparison: a module with ``add_arguments(parser)`` and ``cases(options) -> {name: command}``.

    In a command ``{turn}`` is the number of the round, from 0. Each prints a line of JSON with the module's ``KEY`` and
    ``peak_mib``; ``REFERENCES`` are the cases that the others are compared with; ``LOWER = True`` says that less is
    better.
    """
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> dict[str, Any]:
    """Name the machine and the versions that matter."""
    import torch
    import torchvision

    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        flags = info.read_text()
        model = next((x.split(":")[1].strip() for x in flags.splitlines() if x.startswith("model name")), model)
        extra = [f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {f}" in flags]
        model += f" ({', '.join(extra[:2])})"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version()}
    return {"processor": model, "threads": torch.get_num_threads(), "gpu": gpu, **versions}


def main() -> None:
    """Run every case of a comparison ``--rounds`` times in turn and print medians and ratios."""
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("run", "gpu"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python benchmarks/run.py {{{','.join(names)}}} [options]")
    module = load(sys.argv[1])
    parser = argparse.ArgumentParser(prog=f"benchmarks/run.py {sys.argv[1]}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case runs (default: 3)")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there")
    module.add_arguments(parser)
    options = parser.parse_args(sys.argv[2:])
    cases: dict[str, list[str]] = module.cases(options)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for turn in range(options.rounds):
        for name, command in cases.items():
            command = [word.replace("{turn}", str(turn)) for word in command]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = [x for x in done.stdout.splitlines() if x.startswith("{")]
            if done.returncode or not lines:
                sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            figures[name].append(json.loads(lines[-1]))
            print(f"round {turn + 1}  {name:<28} {lines[-1]}", flush=True)
    result = {"machine": machine(), "figures": figures}
    print(json.dumps(result["machine"]))
    table(figures, module.KEY, module.REFERENCES, lower=getattr(module, "LOWER", False))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


def table(figures: dict[str, list[dict[str, float]]], key: str, references: list[str], *, lower: bool = False) -> None:
    """Print the median of each figure and, round by round, how many times better it is than each reference's.

    Args:
        figures: What each round printed, by case.
        key: The figure to compare.
        references: The cases to compare with.
        lower: Whether less is better: seconds, not images a second.
    """
    print(f"\n{'case':<28} {key:>18} " + " ".join(f"{'/ ' + r:>24}" for r in references) + f" {'peak MiB':>10}")
    for name, rounds in figures.items():
        ratios = []
        for reference in references:
            pairs = [
                b[key] / a[key] if lower else a[key] / b[key] for a, b in zip(rounds, figures[reference], strict=True)
            ]
            ratios.append(f"{statistics.median(pairs):>9.2f} ({min(pairs):.2f}-{max(pairs):.2f})".rjust(24))
        peak = statistics.median(r["peak_mib"] for r in rounds)
        print(f"{name:<28} {statistics.median(r[key] for r in rounds):>18.4g} {' '.join(ratios)} {peak:>10.0f}")


if __name__ == "__main__":
    main()
