"""The one door to speed: `unroll` means what `scan` means, and chooses who runs it; `explain` says who did."""

from recurra.unroll.door import strict, unroll, unroll_packed
from recurra.unroll.explanation import Explanation, describe, explain

__all__ = ["Explanation", "describe", "explain", "strict", "unroll", "unroll_packed"]
