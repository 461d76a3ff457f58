"""Quality: checks that look at the whole set, run at commit, in order."""
