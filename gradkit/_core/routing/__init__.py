"""Routing of leaves. In: a tree and rules on its leaves; out: one transform made of several."""
