"""Small experiments in which what a paper claims can be seen, or fails to be."""
