"""Numbers that change along a run. In: updates made so far, from 0. Out: the number for the next update."""
