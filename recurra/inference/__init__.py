"""Running a trained network where it is used: the streaming session."""

from recurra.inference.session import Session

__all__ = ["Session"]
