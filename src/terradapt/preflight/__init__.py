"""What would spoil a run, found before it starts: files, places, classes, leaks, time."""
