"""Places: paths of this machine and URLs of object stores, and how both are read and published."""
