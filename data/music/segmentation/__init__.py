"""Where a melody's phrases end: classical rules, a dynamic programme over the whole song, and boosted trees."""
