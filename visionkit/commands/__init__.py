"""One file a command beside Lightning's own."""
