"""One law a file. In: a transform under test. Out: nothing, or an AssertionError that names law and leaf."""
