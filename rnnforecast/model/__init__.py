"""The network: the only room that imports torch, and only in some of its modules."""
