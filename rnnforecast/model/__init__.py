"""The network: the only room that imports torch, and only in three of its modules."""
