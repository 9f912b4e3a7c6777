"""AWS on a bad day: what goes wrong there now and then, on demand and reproducibly."""

from localaws.weather.engine import SERVICE_AGENT, Start, Weather

__all__ = ["SERVICE_AGENT", "Start", "Weather"]
