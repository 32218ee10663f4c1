"""The body of the dashboard's response."""

from pydantic import BaseModel


class Greeting(BaseModel):
    """A greeting."""

    message: str


GREETING = Greeting(message="Hello from the dashboard!")
