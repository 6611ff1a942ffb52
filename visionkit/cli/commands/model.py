"""model: write the whole model of a checkpoint alone, without what its training needs to go on."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.cli.commands.backbone import new_file
from visionkit.cli.commands.predict import Parser
from visionkit.cli.config.short_names import first_positional
from visionkit.core.text import say

__all__ = ["main"]


def parser() -> Parser:
    """Return the parser of ``visionkit model``."""
    p = Parser(
        prog="visionkit model",
        description="Write the whole model of a checkpoint alone into a file. CKPT may be written --ckpt CKPT, or "
        "--ckpt_path CKPT.",
        allow_abbrev=False,
    )
    verbs = p.add_subparsers(dest="verb", metavar="export", required=True, parser_class=Parser)
    write = verbs.add_parser(
        "export",
        help="write the model without optimizer and progress of the training",
        description="Write the model of a checkpoint without what its training needs to go on (optimizer, progress), "
        "a third of the size or less. It holds the weights that predict takes, averaged ones (EMA) where the training "
        "averaged. Every command takes the file but `fit --ckpt_path`, and so does visionkit.load; it predicts the "
        "same, bit for bit.",
        allow_abbrev=False,
    )
    write.add_argument("ckpt", metavar="CKPT", help="checkpoint of visionkit fit, such as checkpoints/best.ckpt")
    write.add_argument("out", metavar="OUT.ckpt", help="file to write; its folder is made if need be")
    write.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    write.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                       help="a package beside visionkit whose classes the checkpoint may name "
                       "(repeatable)")  # fmt: skip
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(first_positional(arguments))
    out = new_file(options.out, ".ckpt", "a checkpoint", overwrite=options.overwrite)

    from visionkit.models import checkpoint

    content = checkpoint.read(options.ckpt)
    model = checkpoint.restore(content, options.ckpt, trust=options.trust)
    checkpoint.save(model, out, task=content[checkpoint.KEY]["task"])
    say(f"written  {out}, {out.stat().st_size / 1e6:.1f} MB")
    return 0
