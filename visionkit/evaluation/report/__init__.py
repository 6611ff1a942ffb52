"""An evaluation or a run as one page: words, numbers, charts and pictures, in one file that loads nothing."""
