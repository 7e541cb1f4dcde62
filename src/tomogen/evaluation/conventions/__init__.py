"""Published ways to score a pair, one file each: `measure(pair)` yields the original's numbers, and how they depart."""
