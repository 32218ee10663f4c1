"""Settings of the metrics."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """Whether to count, and where the numbers can be read."""

    model_config = ConfigDict(frozen=True)

    metrics: bool = False
    """Whether to count, for an application that serves `auth.metrics_app()`. A port or a directory implies it."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port on which `latchstring serve` responds to `/metrics`; 0 chooses a free one. Without it there is none."""
    metrics_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The IP address or host name of that port."""
    metrics_dir: Path | None = None
    """The directory in which the workers of one application share their numbers."""

    @property
    def counts(self) -> bool:
        """Whether anything is counted."""
        return self.metrics or self.metrics_port is not None or self.metrics_dir is not None
