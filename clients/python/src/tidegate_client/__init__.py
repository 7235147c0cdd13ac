"""The name that `tidegate` had before: the same objects, for one more release."""

import warnings

from tidegate import Closing, Event, Gap, Problem, State, Stopped, Stream, connect

__all__ = ["Closing", "Event", "Gap", "Problem", "State", "Stopped", "Stream", "connect"]

warnings.warn("tidegate_client is now called tidegate: import that", DeprecationWarning, stacklevel=2)
