"""Two dates, or a map and what came after it: what is new, gone and changed."""
