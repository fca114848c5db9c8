"""Updates that land somewhere. In: an update. Out: `new_params - params`. Stands last in a chain."""
