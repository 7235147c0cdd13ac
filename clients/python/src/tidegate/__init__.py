"""Events of Tidegate: `async with connect(url, topics=[…]) as stream: async for event in stream: …`."""

from tidegate.events import Closing, Event, Gap, Problem, Refused, State, Stopped
from tidegate.stream import Stream, connect

__all__ = ["Closing", "Event", "Gap", "Problem", "Refused", "State", "Stopped", "Stream", "connect"]
