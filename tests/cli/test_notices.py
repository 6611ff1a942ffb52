import logging

from visionkit.cli.notices import hide_notices


def test_noise_is_kept_off_the_screen_and_words_are_not(caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = list(logger.filters)
    try:
        hide_notices()
        for text in (
            "Tip: buy this",
            "GPU available: False",
            "`Trainer.fit` stopped: `max_epochs=3` reached.",
            "a real warning",
        ):
            record = logging.LogRecord(logger.name, logging.WARNING, "", 0, text, None, None)
            assert bool(logger.filter(record)) == (text == "a real warning")
    finally:
        logger.filters[:] = before
