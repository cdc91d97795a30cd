"""Music in and out: one voice in ticks with bars, metre, key and phrases; song collections; phrases and skeletons."""
