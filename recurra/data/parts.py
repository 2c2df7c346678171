"""What the names of files say that they are for."""

_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
PARTS = {name: part for part, names in _NAMES.items() for name in names}  # name: part
