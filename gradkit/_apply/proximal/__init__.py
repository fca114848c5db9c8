"""Parameters drawn to zero by a penalty. In: an update. Out: the difference to the proximal point."""
