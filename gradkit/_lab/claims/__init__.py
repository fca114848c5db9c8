"""Small experiments that reproduce a claim of a paper, or fail to."""
